import { evidenceOfStack } from '#src/cli/verify-evidence.ts'
import { verifyDatabase } from '#src/cli/verify.ts'
import type { Database } from '#db/schema.ts'
import { formatNano } from '#domain/money.ts'
import { isTerminal, RUN_STATES } from '#domain/run-states.ts'
import { readNano } from '#src/cli/demo/ledger-total.ts'
import { type Kysely, sql } from 'kysely'
import type { Follower } from './follower.ts'
import type { Kill } from './part.ts'
import type { SeenRequest } from './provider.ts'
import type { RunEnd, Runs } from './runs.ts'

/** What has to be true after a storm, with the numbers that say so. */
export interface Claim {
  readonly claim: string
  readonly numbers: string
  readonly ok: boolean
}

export interface Aftermath {
  readonly db: Kysely<Database>
  readonly runs: Runs
  readonly kills: readonly Kill[]
  /** By the id of the run, as the API tells them. */
  readonly states: ReadonlyMap<string, RunEnd>
  readonly requests: readonly SeenRequest[]
}

const terminal: ReadonlySet<string> = new Set(RUN_STATES.filter(isTerminal))

export const isOver = (state: string): boolean => terminal.has(state)

/** Every run came to an end, and none was started twice by a client that asked again. */
export async function runsEnded({ db, runs, states }: Aftermath): Promise<readonly Claim[]> {
  const over = [...states.values()].filter(({ state }) => isOver(state)).length
  const kinds = Map.groupBy(states.values(), ({ state, reason }) => (reason === null ? state : `${state} (${reason})`))
  const list = Array.from(kinds, ([state, those]) => `${those.length} ${state}`).join(', ')
  const { rows } = await sql<{
    runs: number
    children: number
    alive: number
    commands: number
    undelivered: number
  }>`
    select (select count(*)::int from run where parent_run_id is null) as runs,
      (select count(*)::int from run where parent_run_id is not null) as children,
      (select count(*)::int from run where finished_at is null) as alive,
      (select count(*)::int from command) as commands,
      (select count(*)::int from command where delivered_at is null) as undelivered`.execute(db)
  const [stored] = rows
  return [
    {
      claim: 'every run is over',
      numbers: `${over} of ${runs.started.length}: ${list}; ${stored?.children} children; ${stored?.alive} not over`,
      ok: over === runs.started.length && stored?.alive === 0,
    },
    {
      claim: 'every start had its effect once',
      numbers: `${stored?.runs} runs for ${runs.started.length} starts; ${runs.client.counts.repeated} requests sent again`,
      ok: stored?.runs === runs.started.length,
    },
    {
      claim: 'every command was delivered',
      numbers: `${stored?.commands} commands, ${stored?.undelivered} undelivered`,
      ok: stored?.undelivered === 0,
    },
  ]
}

interface Attempts {
  readonly attempts: number
  readonly unresolved: number
  readonly holds: number
  readonly wronglyResolved: number
}

/** What the provider was sent, against what the ledger knows to have been sent. */
export async function requestsKnown({ db, requests }: Aftermath): Promise<readonly Claim[]> {
  const known = await sql<{ key: string }>`select call_id || ':' || number as key from attempt`.execute(db)
  const keys = new Set(known.rows.map(({ key }) => key))
  const seen = Map.groupBy(requests, ({ callKey, attempt }) => `${callKey}:${attempt}`)
  const strangers = [...seen.keys()].filter((key) => !keys.has(key)).length
  const twice = [...seen.values()].filter((those) => those.length > 1).length
  const { rows } = await sql<Attempts>`
    with resolution as (
      select h.id, count(r.id)::int as times
      from transfer h left join transfer r on r.pending_id = h.id where h.code = 'hold' group by h.id
    )
    select (select count(*)::int from attempt) as attempts,
      (select count(*)::int from attempt where state <> 'resolved') as unresolved,
      (select count(*)::int from resolution) as holds,
      (select count(*)::int from resolution where times <> 1) as "wronglyResolved"`.execute(db)
  const [found] = rows
  return [
    {
      claim: 'every request at the provider has its attempt, and no attempt two requests',
      numbers: `${requests.length} requests, ${strangers} without an attempt, ${twice} attempts with more than one`,
      ok: requests.length > 0 && strangers === 0 && twice === 0,
    },
    {
      claim: 'requests ≤ attempts marked sent',
      numbers: `${requests.length} ≤ ${keys.size}`,
      ok: requests.length <= keys.size,
    },
    {
      claim: 'every attempt and every hold is resolved once',
      numbers: `${found?.attempts} attempts, ${found?.unresolved} unresolved; ${found?.holds} holds, ${found?.wronglyResolved} not once`,
      ok: found?.unresolved === 0 && found.wronglyResolved === 0 && found.holds === found.attempts,
    },
  ]
}

interface Answered {
  readonly id: string
  /** By itself, and because its owner was asked. */
  readonly mayRepeat: number
  readonly useful: number
}

/** A call is repeated no more often than its owner has allowed, and paid as useful once at most. */
export async function callsAnsweredOnce({ db, requests }: Aftermath): Promise<readonly Claim[]> {
  const { rows } = await sql<Answered>`
    select c.id, (r.options ->> 'mayRepeat')::int
        + (select count(*)::int from command k where k.run_id = r.id and k.kind = 'answer') as "mayRepeat",
      (select count(*)::int from transfer t
        where t.call_id = c.id and t.use = 'useful' and t.code = 'capture') as useful
    from call c join run r on r.id = c.run_id`.execute(db)
  const begun = Map.groupBy(
    requests.filter((request) => request.begun),
    ({ callKey }) => callKey,
  )
  const times = ({ id }: Answered): number => begun.get(id)?.length ?? 0
  const repeated = rows.filter((call) => times(call) > 1).length
  const tooOften = rows.filter((call) => times(call) > 1 + call.mayRepeat).length
  const twice = rows.filter(({ useful }) => useful > 1).length
  return [
    {
      claim: 'no call is begun at the provider more often than mayRepeat allows, or answered twice',
      numbers: `${rows.length} calls, ${repeated} repeated, ${tooOften} too often, ${twice} answered twice`,
      ok: rows.length > 0 && tooOften === 0 && twice === 0,
    },
  ]
}

interface Span {
  readonly pid: number
  readonly outcome: string
  readonly sentMs: number
  readonly resolvedMs: number
}

/** An answer may be lost with the process that waited for it, or while nothing could be written. Nothing else is. */
export async function lostWithKills({ db, kills }: Aftermath): Promise<readonly Claim[]> {
  const { rows } = await sql<Span>`
    select i.pid, a.outcome, extract(epoch from a.sent_at)::float8 * 1000 as "sentMs",
      extract(epoch from a.resolved_at)::float8 * 1000 as "resolvedMs"
    from attempt a join instance i on i.id = a.instance_id`.execute(db)
  const wasInFlight = (span: Span): boolean => kills.some((kill) => endangers(kill, span))
  const inFlight = rows.filter(wasInFlight).length
  const lost = rows.filter(({ outcome }) => outcome === 'lost')
  const strays = lost.filter((span) => !wasInFlight(span)).length
  return [
    {
      claim: 'lost ≤ calls in flight at the kills of their process or of Postgres',
      numbers: `${lost.length} ≤ ${inFlight}; ${strays} lost at no kill`,
      ok: lost.length <= inFlight && strays === 0,
    },
  ]
}

function endangers(kill: Kill, span: Span): boolean {
  if (kill.part !== 'postgres' && kill.pid !== span.pid) return false
  return span.sentMs <= kill.toMs && span.resolvedMs >= kill.fromMs
}

export async function nothingHeld({ db }: Aftermath): Promise<readonly Claim[]> {
  const { rows } = await sql<{ accounts: number; held: number; envelopes: number; open: number }>`
    select (select count(*)::int from account) as accounts,
      (select count(*)::int from account where pending_debit <> 0 or pending_credit <> 0) as held,
      (select count(*)::int from envelope where run_id is not null) as envelopes,
      (select count(*)::int from envelope where run_id is not null and gate <> 'closed') as open`.execute(db)
  const [found] = rows
  return [
    {
      claim: 'no hold is left, every envelope is closed',
      numbers: `${found?.held} of ${found?.accounts} accounts hold; ${found?.open} of ${found?.envelopes} envelopes open`,
      ok: found?.held === 0 && found.open === 0,
    },
  ]
}

/** A map has one outcome for each row that it has come to, and for all when it has completed. */
export async function rowsOnce({ db, states }: Aftermath): Promise<readonly Claim[]> {
  const { rows } = await sql<{ id: string; rows: number; outcomes: number; open: number }>`
    select r.id, (select count(*)::int from dataset_row d where d.dataset_id = (r.input ->> 'datasetId')::uuid) as rows,
      (select count(*)::int from run_map_row m where m.run_id = r.id) as outcomes,
      (select count(*)::int from run_map_row m where m.run_id = r.id and m.outcome not in ('answered', 'failed')) as open
    from run r where r.agent = 'map'`.execute(db)
  const completed = rows.filter(({ id }) => states.get(id)?.state === 'completed')
  const wrong = rows.filter((map) => map.outcomes > map.rows).length
  const short = completed.filter((map) => map.outcomes !== map.rows || map.open > 0).length
  const outcomes = rows.reduce((sum, map) => sum + map.outcomes, 0)
  return [
    {
      claim: 'every row of a map has its outcome once',
      numbers: `${rows.length} maps, ${completed.length} completed, ${outcomes} rows; ${wrong + short} maps wrong`,
      ok: wrong + short === 0,
    },
  ]
}

/** Every report, as the API tells it, against the journal and the provider's own bill. */
export async function reportsRight({ db, runs, requests }: Aftermath): Promise<readonly Claim[]> {
  const bill = new Map(requests.map(({ callKey, attempt, billed }) => [`${callKey}:${attempt}`, readNano(billed)]))
  let total = 0n
  let different = 0
  let billed = 0
  let wronglyBilled = 0
  const all = await db.selectFrom('run').select('id').execute()
  for (const { id } of all) {
    const report = await runs.client.ask((api) => api.get('/runs/{id}/report', { params: { path: { id } } }))
    const spent = report.totals.reduce((sum, each) => sum + readNano(each.spent.amount), 0n)
    if (spent !== (await spentOf(db, id))) different += 1
    total += spent
    for (const call of report.calls) {
      for (const { number, certainty, charged } of call.attempts) {
        if (certainty !== 'billed') continue
        billed += 1
        if (bill.get(`${call.id}:${number}`) !== readNano(charged.amount)) wronglyBilled += 1
      }
    }
  }
  return [
    {
      claim: 'every report equals the ledger to the nano',
      numbers: `${all.length} reports, ${different} differ; ${formatNano(total)} USD`,
      ok: different === 0 && all.length > 0,
    },
    {
      claim: "what is labelled billed is what the provider's own book says",
      numbers: `${billed} attempts, ${wronglyBilled} differ`,
      ok: wronglyBilled === 0 && billed > 0,
    },
  ]
}

async function spentOf(db: Kysely<Database>, runId: string): Promise<bigint> {
  const { rows } = await sql<{ spent: bigint }>`
    select coalesce(sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end), 0)::bigint as spent
    from transfer t join account d on d.id = t.debit_account join account c on c.id = t.credit_account
    where t.run_id = ${runId} and t.code in ('capture', 'overage', 'correction')
      and 'provider_cost' in (c.kind, d.kind)`.execute(db)
  return rows[0]?.spent ?? 0n
}

export async function verified(databaseUrl: string, folder: string): Promise<readonly Claim[]> {
  const { ok, checks } = await verifyDatabase(databaseUrl, await evidenceOfStack(folder))
  const wrong = checks.filter((check) => !check.ok)
  const names = wrong.map(({ name, firstWrong }) => `; ${name}: ${firstWrong}`).join('')
  return [{ claim: 'purser verify is clean', numbers: `${checks.length} checks, ${wrong.length} wrong${names}`, ok }]
}

/** What followers heard over all kills, against the table. */
export async function eventsHeardOnce({ db, kills }: Aftermath, followers: readonly Follower[]): Promise<Claim> {
  let events = 0
  let wrong = 0
  for (const { runId, heard } of followers) {
    const { rows } = await sql<{ id: string }>`
      select xid::text || '-' || seq as id from event where run_id = ${runId} order by event.xid, event.seq`.execute(db)
    // After the last event of the run itself corrections may follow, which end no stream.
    const told = rows.slice(0, Math.max(heard.length, rows.findIndex(({ id }) => id === heard.at(-1)) + 1))
    events += told.length
    if (heard.length === 0 || told.some(({ id }, index) => heard[index] !== id)) wrong += 1
  }
  const returns = followers.reduce((sum, each) => sum + each.returns, 0)
  const apiKills = kills.filter(({ part }) => part === 'api').length
  return {
    claim: 'streams followed with Last-Event-ID show every event exactly once, in order',
    numbers: `${followers.length} streams, ${events} events, ${returns} returns, ${apiKills} kills of the API; ${wrong} streams wrong`,
    ok: wrong === 0 && followers.length > 0,
  }
}
