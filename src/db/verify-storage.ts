import { sql } from 'kysely'
import { epochOf, type TableCheck } from './verify-table.ts'

/** The ids of a tree begin with the same time: see `deriveId`. */
const treeId = (rest: string) => sql`(left(r.id::text, 13) || ${rest}::text)::uuid`

/** What was erased, and whether it might be. Nothing of it moves money: the incremental verification leaves it out. */
export const storageChecks: readonly TableCheck[] = [
  {
    name: 'erased texts',
    claim: 'of what is erased the digest is there, and its run, if it has one, is given up',
    table: 'payload',
    key: 'id',
    alias: 'p',
    only: sql`body is null`,
    pieceRows: 10_000,
    movedBy: null,
    rows: (piece, join) => sql`
      select 'payload ' || p.id as name, ${epochOf(sql`p.created_at`)} as place,
        case
          when p.digest is null or length(p.digest) <> 32 then 'is gone without its digest'
          when p.erased_at is null then 'is gone, and was not erased'
          when p.run_id is not null and r.erasing_at is null then 'is erased, and its run is not given up'
        end as wrong
      from payload p
      ${join('run', 'r', sql`r.id = p.run_id`)}
      where ${piece} and p.body is null`,
  },
  {
    name: 'erased runs',
    claim:
      'a run that is erased is over with all below it, and nothing that it asked, was answered, was given by tools or delivered is left',
    table: 'run',
    key: 'id',
    alias: 'r',
    only: sql`erasing_at is not null`,
    // Each with all its calls.
    pieceRows: 100,
    movedBy: null,
    rows: (piece) => sql`
      select 'run ' || r.id as name, ${epochOf(sql`r.created_at`)} as place,
        case
          when r.finished_at is null then 'is given up, and not over'
          when exists (select from run b where b.parent_run_id = r.id and b.erasing_at is null) then
            'is given up, and a run below it is not'
          when r.erased_at is not null and exists (
            select from call c join payload p on p.id in (c.request_id, c.answer_id)
            where c.run_id = r.id and p.body is not null
          ) then 'is erased, and something of its calls is left'
          when r.output <> 'null' then 'is given up, and what it delivered is left'
          when r.erased_at is not null and r.parent_run_id is null and exists (
            select from payload p join run o on o.id = p.run_id
            where p.id between ${treeId('-0000-0000-000000000000')} and ${treeId('-ffff-ffff-ffffffffffff')} and p.body is not null and o.erased_at is not null
          ) then 'is erased, and something of its tree is left'
        end as wrong
      from run r where ${piece} and r.erasing_at is not null`,
  },
]
