import { sql, type Kysely, type RawBuilder } from 'kysely'
import { instantText } from './instant.ts'
import type { Database } from './schema.ts'

/** Runs and payloads of one look, and how many bodies, as they lie on the disk, one commit erases: a second at most. */
const MOST_RUNS = 100
const MOST_PAYLOADS = 1_000
const MOST_BYTES = 16 * 1024 * 1024
/** Commits of one turn, of some milliseconds each as a rule: the next one goes on. */
const MOST_COMMITS = 2_000

export interface Erased {
  /** Trees of runs that were marked. */
  readonly marked: number
  readonly payloads: number
  /** Runs of which nothing is left. */
  readonly runs: number
}

/**
 * Erases prompts and answers whose time is over, as their projects say; a bounded part of them. What may go is decided in
 * the database again, by `erase_payloads`; here it is found. Many at once do no harm: each finds less.
 *
 * @param turn.most commits of this turn
 * @throws the first failure, when the others had their turn
 */
export async function eraseDue(
  db: Kysely<Database>,
  { most = MOST_COMMITS, isStopped = () => false }: { readonly most?: number; readonly isStopped?: () => boolean } = {},
): Promise<Erased> {
  const turn: Turn = { commits: most, isStopped, payloads: 0, runs: 0, failure: undefined }
  await orKeep(turn, () => eraseOfNoRun(db, turn))
  let marked = 0
  let found: number
  do {
    found = await beginErasing(db)
    marked += found
  } while (found === MOST_RUNS && !isOver(turn))
  await eraseMarked(db, turn)
  if (turn.failure) throw turn.failure.error
  return { marked, payloads: turn.payloads, runs: turn.runs }
}

interface Turn {
  commits: number
  readonly isStopped: () => boolean
  payloads: number
  runs: number
  /** The first one. */
  failure: { readonly error: unknown } | undefined
}

function isOver({ commits, isStopped }: Turn): boolean {
  return commits <= 0 || isStopped()
}

/** A body that takes longer than a commit may keeps no other one. Undefined when it failed. */
async function orKeep<Result>(turn: Turn, work: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await work()
  } catch (error) {
    turn.failure ??= { error }
    return undefined
  }
}

async function beginErasing(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ marked: number }>`select begin_erasing(${MOST_RUNS}) as marked`.execute(db)
  return rows[0]?.marked ?? 0
}

interface MarkedRun {
  readonly id: string
  readonly isRoot: boolean
  readonly place: string
}

/** Those that were marked first first; each once, so that one that cannot be erased keeps no other. */
async function eraseMarked(db: Kysely<Database>, turn: Turn): Promise<void> {
  let after: string | undefined
  do {
    const page: readonly MarkedRun[] = await runsToErase(db, after)
    for (const run of page) {
      if (isOver(turn)) return
      if (!(await orKeep(turn, () => eraseRun(db, run, turn)))) continue
      await endErasing(db, run.id)
      turn.commits -= 1
      turn.runs += 1
    }
    after = page.length < MOST_RUNS ? undefined : page.at(-1)?.place
  } while (after !== undefined)
}

async function runsToErase(db: Kysely<Database>, after?: string): Promise<readonly MarkedRun[]> {
  const { rows } = await sql<MarkedRun>`
    select id, parent_run_id is null as "isRoot", ${placeOf(sql`erasing_at`, sql`id`)} as place
    from run where erasing_at is not null and erased_at is null and ${isBehind(sql`(erasing_at, id)`, after)}
    order by erasing_at, id limit ${MOST_RUNS}`.execute(db)
  return rows
}

/** Where a page ends that is in the order of a moment. */
function placeOf(moment: RawBuilder<unknown>, id: RawBuilder<unknown>): RawBuilder<string> {
  return sql<string>`${instantText(moment)} || ' ' || ${id}`
}

function isBehind(columns: RawBuilder<unknown>, after: string | undefined): RawBuilder<boolean> {
  const [at, id] = after?.split(' ') ?? []
  return after === undefined ? sql`true` : sql`${columns} > (${at}::timestamptz, ${id}::uuid)`
}

/** Whether nothing of it is left. The requests and answers of its calls first, then whatever else belongs to its tree. */
async function eraseRun(db: Kysely<Database>, run: MarkedRun, turn: Turn): Promise<boolean> {
  if (!(await eraseAll(db, (after) => payloadsOfCalls(db, run.id, after), turn))) return false
  // The ids of a tree begin with the same time: see `deriveId`. What tools gave is found by it, and answers of no call.
  return !run.isRoot || eraseAll(db, (after) => payloadsOfTree(db, run.id, after), turn)
}

async function endErasing(db: Kysely<Database>, runId: string): Promise<void> {
  await sql`
    update run set erased_at = clock_timestamp() where id = ${runId} and erasing_at is not null and erased_at is null
  `.execute(db)
}

/** A payload that is there. */
interface Found {
  readonly id: string
  readonly bytes: number
}

interface FoundPage {
  readonly payloads: readonly Found[]
  /** Where to look on; undefined behind the last one. */
  readonly next: string | undefined
}

/** Whether it came to the end within what the turn has left. */
async function eraseAll(
  db: Kysely<Database>,
  pageAfter: (place: string | undefined) => Promise<FoundPage>,
  turn: Turn,
): Promise<boolean> {
  let after: string | undefined
  do {
    const { payloads, next } = await pageAfter(after)
    for (const ids of bySize(payloads)) {
      if (isOver(turn)) return false
      turn.commits -= 1
      turn.payloads += await erasePayloads(db, ids)
    }
    after = next
  } while (after !== undefined)
  return true
}

/** As many as one commit may erase; of one that is larger alone, that one. */
function bySize(payloads: readonly Found[]): readonly (readonly string[])[] {
  const groups: string[][] = []
  let bytes = 0
  for (const each of payloads) {
    const group = groups.at(-1)
    bytes += each.bytes
    if (group && bytes <= MOST_BYTES) group.push(each.id)
    else {
      groups.push([each.id])
      bytes = each.bytes
    }
  }
  return groups
}

/** Erases those of them that may go. Returns how many. */
export async function erasePayloads(db: Kysely<Database>, ids: readonly string[]): Promise<number> {
  const { rows } = await sql<{ erased: number }>`select erase_payloads(${[...ids]}::uuid[]) as erased`.execute(db)
  return rows[0]?.erased ?? 0
}

/** Requests and answers of a page of a run's calls, in the order in which they were opened. */
async function payloadsOfCalls(db: Kysely<Database>, runId: string, after?: string): Promise<FoundPage> {
  const { rows } = await sql<{ place: string; payloads: readonly Found[] | null }>`
    select ${placeOf(sql`c.created_at`, sql`c.id`)} as place, p.payloads
    from (
      select id, created_at, request_id, answer_id from call where run_id = ${runId} and ${isBehind(sql`(created_at, id)`, after)}
      order by created_at, id limit ${MOST_PAYLOADS}
    ) c
    cross join lateral (
      select json_agg(json_build_object('id', p.id, 'bytes', pg_column_size(p.body))) as payloads from payload p
      where p.id in (c.request_id, c.answer_id) and p.body is not null
    ) p
    order by c.created_at, c.id`.execute(db)
  return { payloads: rows.flatMap(({ payloads }) => payloads ?? []), next: nextOf(rows) }
}

/** Whatever was stored under an id that begins as that of a root. */
async function payloadsOfTree(db: Kysely<Database>, rootId: string, after?: string): Promise<FoundPage> {
  const begin = rootId.slice(0, 13)
  const { rows } = await sql<Found & { place: string }>`
    select p.id, p.id as place, pg_column_size(p.body) as bytes from payload p join run r on r.id = p.run_id
    where p.id > ${after ?? `${begin}-0000-0000-000000000000`}::uuid
      and p.id <= ${`${begin}-ffff-ffff-ffffffffffff`}::uuid and p.body is not null and r.erasing_at is not null
    order by p.id limit ${MOST_PAYLOADS}`.execute(db)
  return { payloads: rows, next: nextOf(rows) }
}

function nextOf(rows: readonly { readonly place: string }[]): string | undefined {
  return rows.length < MOST_PAYLOADS ? undefined : rows.at(-1)?.place
}

/** What of calls of no run is older than its project keeps it. */
async function eraseOfNoRun(db: Kysely<Database>, turn: Turn): Promise<void> {
  let erased: number
  do {
    const { rows } = await sql<Found>`
      select p.id, pg_column_size(p.body) as bytes
      from project o
      cross join lateral (
        select id, body from payload
        where project_id = o.id and run_id is null and body is not null
          and created_at < clock_timestamp() - kept_for(o)
        order by created_at limit ${MOST_PAYLOADS}
      ) p
      where o.storage = 'hash_only' or o.keep_days is not null limit ${MOST_PAYLOADS}`.execute(db)
    erased = 0
    for (const ids of bySize(rows)) {
      if (isOver(turn)) return
      turn.commits -= 1
      erased += await erasePayloads(db, ids)
    }
    turn.payloads += erased
  } while (erased > 0)
}
