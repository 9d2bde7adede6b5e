import { sql, type RawBuilder } from 'kysely'
import { extras } from './verify-attempts.ts'
import type { Lookup } from './verify-lookup.ts'
import { epochOf, type TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in the journal. */
const JOINED_PIECE = 10_000

/** The first and the last attempt of each call that was useful: by its capture, or by a correction of it. */
function usefulAttempts(join: Lookup): RawBuilder<unknown> {
  return sql`
    select a.call_id, min(a.number) as first, max(a.number) as last
    from attempt a
    ${join('transfer', 'r', sql`r.pending_id = a.hold_id and r.call_id = a.call_id and r.code = 'capture' and r.use = 'useful'`)}
    left join extra e on e.call_id = a.call_id and e.attempt = a.number
    where r.id is not null or e.call_id is not null
    group by a.call_id`
}

/** Of a payload, erased or not: of few rows, so that no join carries bodies. */
function digestOf(payloadId: string): RawBuilder<unknown> {
  return sql`(select coalesce(d.digest, payload_digest(d.body)) from payload d where d.id = ${sql.ref(payloadId)})`
}

/** Calls against their attempts, and against whose they are. */
export const callChecks: readonly TableCheck[] = [
  {
    name: 'answers',
    claim: 'an answered call has one useful attempt: the one that answered it',
    table: 'call',
    key: 'id',
    alias: 'c',
    pieceRows: JOINED_PIECE,
    isOfCalls: true,
    movedBy: 'call_id',
    rows: (piece, join) => sql`
      with extra as materialized (
        select distinct call_id, attempt from (${extras}) e where code = 'correction' and use = 'useful'
      )
      select 'call ' || c.id as name, ${epochOf(sql`c.created_at`)} as place,
        case
          when c.state = 'open' and u.first is not null then 'has no answer but a useful attempt'
          when c.reused_from is not null then case
            when u.first is not null then 'has the answer of another call and a useful attempt'
            when not exists (
              select from call o
              where o.id = c.reused_from and o.reused_from is null and (o.project_id, o.digest) = (c.project_id, c.digest)
                and (o.answer_id = c.answer_id or ${digestOf('o.answer_id')} = ${digestOf('c.answer_id')})
            ) then 'has the answer of a call that has another'
            when p.id is null then 'its answer is missing' end
          when c.state = 'answered' and (u.first, u.last) is distinct from (c.answer_attempt, c.answer_attempt) then
            'was answered by attempt ' || c.answer_attempt || ', useful are '
            || coalesce(u.first || ' to ' || u.last, 'none')
          when c.state = 'answered' and p.id is null then 'its answer is missing'
        end as wrong
      from call c
      ${join(usefulAttempts(join), 'u', sql`u.call_id = c.id`)}
      ${join('payload', 'p', sql`p.id = c.answer_id`)}
      where ${piece}`,
  },
  {
    name: 'calls',
    claim: 'every call is of a run, an envelope and a project that are there and belong together',
    table: 'call',
    key: 'id',
    alias: 'c',
    pieceRows: JOINED_PIECE,
    isOfCalls: true,
    movedBy: 'call_id',
    rows: (piece, join) => sql`
      select 'call ' || c.id as name, ${epochOf(sql`c.created_at`)} as place,
        case
          when p.id is null then 'its project is missing'
          when e.id is null then 'its envelope is missing'
          when e.project_id <> c.project_id or e.run_id is distinct from c.run_id then
            'its envelope is of another run or project'
          when e.api_key_id is distinct from c.api_key_id then 'its envelope is of another key'
          when c.run_id is not null and r.id is null and e.parent_id is null then 'its run is missing'
          when r.project_id <> c.project_id or r.api_key_id <> c.api_key_id then 'its run is of another key or project'
          when c.state not in ('open', 'answered') then 'is ' || c.state
          when (c.state = 'answered') <> (c.answered_at is not null) or (c.state = 'answered') <> (c.answer_id is not null)
            or (c.state = 'answered' and c.reused_from is null) <> (c.answer_attempt is not null) then 'is ' || c.state || ', and its answer is not'
        end as wrong
      from call c
      ${join('project', 'p', sql`p.id = c.project_id`)}
      ${join('envelope', 'e', sql`e.id = c.envelope_id`)}
      ${join('run', 'r', sql`r.id = c.run_id`)}
      where ${piece}`,
  },
]
