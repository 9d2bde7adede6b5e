import { makeSecret } from '#api/key-secret.ts'
import { KEY_SCOPES } from '#contracts/names.ts'
import { createKey } from '#db/api-key.ts'
import { invariant } from '#domain/invariant.ts'
import { loadConfig } from '#src/config.ts'
import { startServer } from '#src/server.ts'
import { pollUntil } from '../support/poll.ts'
import * as benchAgents from './agents/index.ts'
import { percentile, rowOf, type BenchOptions, type Row } from './frame.ts'
import { ROUTE } from './ledger-tenant.ts'
import { residentMb } from './resident.ts'
import { TASK_QUEUES, type Stage } from './runs-stage.ts'

const LATENCIES = 60
const QUICK_LATENCIES = 3
const OPEN_RUNS = 1_000
const QUICK_OPEN_RUNS = 20
/** Runs that are opened at the same time: the pool's size, twice. */
const OPENING = 16
const RUN_DEADLINE_MS = 30_000
const PAUSED_DEADLINE_MS = 600_000

/** From the answer to POST /runs until the provider sees the first request: one run at a time, nothing else going on. */
export async function latencyRows(stage: Stage, name: string, options: BenchOptions): Promise<readonly Row[]> {
  const config = loadConfig({
    PURSER_DATABASE_URL: stage.database.appUrl,
    PURSER_API_PORT: '0',
    PURSER_TASK_QUEUE: TASK_QUEUES.ours,
    TEMPORAL_ADDRESS: stage.temporalAddress,
  })
  const agents = Object.values(benchAgents).map((agent) => agent.manifest)
  const server = await startServer(config, { agents })
  try {
    const secret = await makeProjectKey(stage)
    const times: number[] = []
    await stage.provider.arrivals()
    const count = options.size === 'quick' ? QUICK_LATENCIES : LATENCIES
    // The first one warms up.
    for (let index = 0; index <= count; index += 1) {
      const tookMs = await timeOf(stage, { url: server.url, secret, head: `idle-${index}` })
      if (index > 0) times.push(tookMs)
    }
    options.say(`${name}: ${count} runs of one call, one after another`)
    return [0.5, 0.95].map((share) =>
      rowOf({
        case: name,
        metric: `start to first call, p${share * 100} in ms`,
        ours: [percentile(times, share)],
      }),
    )
  } finally {
    await server.stop()
  }
}

async function makeProjectKey({ db, tenant }: Stage): Promise<string> {
  const { projectId } = tenant.scope
  const { organisation_id: organisationId } = await db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', projectId)
    .executeTakeFirstOrThrow()
  const secret = makeSecret('pk')
  const rights = { organisationId, projectId, name: 'bench-idle', scopes: KEY_SCOPES }
  await createKey(db, { ...rights, secret, nowMs: Date.now() })
  return secret
}

async function timeOf(
  stage: Stage,
  { url, secret, head }: { readonly url: string; readonly secret: string; readonly head: string },
): Promise<number> {
  const amount = { amount: '1', currency: ROUTE.currency }
  const response = await fetch(`${url}/api/v1/runs`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json', 'idempotency-key': head },
    body: JSON.stringify({
      agent: 'stepper',
      model: ROUTE.name,
      input: { count: 1, head },
      envelope: { pockets: [{ balanceClass: ROUTE.balanceClass, amount }] },
      onExhausted: 'pause',
    }),
  })
  const text = await response.text()
  const answeredMs = Date.now()
  if (!response.ok) throw new Error(`POST /runs answered ${response.status}: ${text}`)
  await untilNoneIs(stage, ['queued', 'running'], RUN_DEADLINE_MS)
  const [arrivedMs, ...others] = await stage.provider.arrivals()
  invariant(arrivedMs !== undefined && others.length === 0, 'a run of one step makes one request')
  return arrivedMs - answeredMs
}

/** What a thousand runs that wait add to the resident memory of the worker's process. */
export async function memoryRow({ ours, db, tenant }: Stage, options: BenchOptions): Promise<Row> {
  const count = options.size === 'quick' ? QUICK_OPEN_RUNS : OPEN_RUNS
  const pid = ours.worker.pid
  const before = await residentMb(pid)
  for (let opened = 0; opened < count; opened += OPENING) {
    const inputs = Array.from({ length: Math.min(OPENING, count - opened) }, () => ({}))
    const runs = await ours.prepare('waiter', inputs)
    await Promise.all(runs.map((run) => run.start()))
  }
  await untilNoneIs({ db, tenant }, ['queued', 'running'], PAUSED_DEADLINE_MS)
  const after = await residentMb(pid)
  options.say(`${count} open runs: ${Math.round(before)} MB before, ${Math.round(after)} MB after`)
  return rowOf({
    case: `${count.toLocaleString('en')} runs that wait`,
    metric: 'MB they add to the worker, for 1,000',
    ours: [((after - before) / count) * 1_000],
  })
}

function untilNoneIs(
  { db, tenant }: Pick<Stage, 'db' | 'tenant'>,
  states: readonly ('queued' | 'running')[],
  deadlineMs: number,
): Promise<unknown> {
  return pollUntil(
    async () => {
      const left = await db
        .selectFrom('run')
        .select('id')
        .where('project_id', '=', tenant.scope.projectId)
        .where('state', 'in', [...states])
        .limit(1)
        .execute()
      return left.length === 0
    },
    { what: `no run is ${states.join(' or ')}`, deadlineMs },
  )
}
