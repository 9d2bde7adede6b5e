import { setTimeout as delay } from 'node:timers/promises'
import type { RunView } from '#contracts/api-run.ts'
import { PurserClient } from '#client/purser-client.ts'
import { PatientClient } from './client.ts'
import { Follower } from './follower.ts'
import { RUN_KINDS, type RunKind } from './run-kinds.ts'
import type { Tenant } from './tenant.ts'
import type { Workflows } from './workflows.ts'

const QUESTIONS = [
  'How does a run end when its money is used up?',
  'What happens to an attempt whose process was killed?',
  'How are balances of a wallet kept, and what is a lot?',
  'What does verify prove, and what can it not detect?',
  'Why are limits leased to envelopes?',
  'Which faults can the sandbox provider show?',
  'How is a backup of the ledger restored?',
  'Which route is taken when a circuit is open?',
] as const

/** The last run starts when so much of the storm is over: it too should meet some of it. */
const STARTED_BY = 0.8
/** Kills delay, and leases lapse, but a run ends. */
const END_DEADLINE_MS = 600_000

export interface RunsOptions {
  readonly apiUrl: string
  readonly workflows: Workflows
  readonly tenant: Tenant
  readonly count: number
  readonly durationMs: number
  readonly random: (below: number) => number
  readonly say: (what: string) => void
  readonly signal: AbortSignal
}

export interface StartedRun {
  readonly id: string
  readonly kind: string
}

/** How a run stands, and why. */
export type RunEnd = Pick<RunView, 'state' | 'reason' | 'detail'>

export interface Runs {
  readonly client: PatientClient
  readonly started: readonly StartedRun[]
  readonly followers: readonly Follower[]
  /** How many owners have something to do still: other runs may come of it. */
  readonly waits: { readonly count: number }
  /** When every owner has done what it does, which is after the end of its run where it waits for that. */
  readonly owners: Promise<unknown>
}

/** Begins to start runs, spread over the storm; the first of each kind is followed. Answers when all are started. */
export async function startRuns(options: RunsOptions): Promise<Runs> {
  const { apiUrl, workflows, tenant, count, durationMs, random, say, signal } = options
  const api = new PurserClient(apiUrl, tenant.key)
  const client = new PatientClient(api)
  const beganMs = performance.now()
  const progress = () => (performance.now() - beganMs) / durationMs
  const started: StartedRun[] = []
  const followers: Follower[] = []
  const owners: Promise<void>[] = []
  const followed = new Set<string>()
  const start = async (kind: RunKind, index: number): Promise<void> => {
    await delay(((durationMs * STARTED_BY) / count) * index, undefined, { signal })
    const question = QUESTIONS[random(QUESTIONS.length)] ?? QUESTIONS[0]
    const body = kind.request({ ...tenant, question, random })
    const { id } = await client.ask((each) => each.startRun({ body, idempotencyKey: `chaos-${index}` }))
    started.push({ id, kind: kind.name })
    say(`run ${index + 1} of ${count}: ${kind.name}`)
    if (!followed.has(kind.name)) followers.push(new Follower(api, id, signal))
    followed.add(kind.name)
    const began = (other: string): void => {
      started.push({ id: other, kind: `of ${kind.name}` })
      followers.push(new Follower(api, other, signal))
    }
    const terminate = (): Promise<void> => workflows.terminate(id)
    owners.push(kind.owner({ id, client, random, progress, terminate, began }))
  }
  await Promise.all(ordered(count, random).map(start))
  const waits = { count: owners.length }
  for (const owner of owners) void owner.finally(() => (waits.count -= 1)).catch(() => undefined)
  return { client, started, followers, waits, owners: Promise.all(owners) }
}

/** The kinds in the order in which they start: the first one first, because it waits longest; all others as it comes. */
function ordered(count: number, random: (below: number) => number): readonly RunKind[] {
  const [first, ...others] = Array.from({ length: Math.ceil(count / 20) }).flatMap(() =>
    RUN_KINDS.flatMap((kind) => Array.from({ length: kind.count }, () => kind)),
  )
  for (let index = others.length - 1; index > 0; index -= 1) {
    const other = random(index + 1)
    const [one, two] = [others[index], others[other]]
    if (one && two) [others[index], others[other]] = [two, one]
  }
  return first ? [first, ...others].slice(0, count) : []
}

/** Waits until each run says that it is over, or too long. */
export async function awaitEnds(runs: Runs, isOver: (state: string) => boolean): Promise<ReadonlyMap<string, RunEnd>> {
  const states = new Map<string, RunEnd>()
  const deadline = performance.now() + END_DEADLINE_MS
  while (performance.now() < deadline) {
    for (const { id } of runs.started) {
      const known = states.get(id)
      if (known !== undefined && isOver(known.state)) continue
      states.set(id, await runs.client.ask((api) => api.get('/runs/{id}', { params: { path: { id } } })))
    }
    const isQuiet = runs.waits.count === 0 && states.size === runs.started.length
    if (isQuiet && [...states.values()].every(({ state }) => isOver(state))) break
    await delay(1_000)
  }
  return states
}
