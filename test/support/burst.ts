import type { CallResult } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { executeCall } from '#calls/execute.ts'
import type { ChatBody } from '#contracts/chat.ts'
import { attemptsOf, createFaultWorld, nanoOf, reportOf, type ScriptedRoute } from './fault-world.ts'
import { pollUntil } from './poll.ts'
import { requestsSeen, type TestRun, type World } from './world.ts'

/** Callers that come at once, and for how many of them there is money. */
export const CALLERS = 200
export const AFFORDABLE = 20n

/** How long a caller asks again who is told to wait. */
const PATIENCE_MS = 60_000

export interface Burst {
  readonly world: World
  readonly run: TestRun
  /** The worst case of one call, in nano. */
  readonly hold: bigint
  readonly budget: bigint
}

/** A budget for so many calls of this kind, which a probe with a run of its own has measured. */
export async function prepareBurst(options: {
  readonly body: ChatBody
  /** Of caller number `caller`; he has a catalog model of his own if his routes are not those of all. */
  readonly routesOf: (caller: number) => readonly ScriptedRoute[]
  readonly isShared?: boolean
  readonly budgetOf?: (hold: bigint) => bigint
}): Promise<Burst> {
  const { body, routesOf, isShared = true, budgetOf = (hold) => hold * AFFORDABLE } = options
  const models = Array.from({ length: isShared ? 1 : CALLERS }, (_, caller) => ({
    name: isShared ? 'steady' : `steady-${caller}`,
    routes: routesOf(caller),
  }))
  const world = await createFaultWorld({
    kind: 'openrouter',
    models: [...models, { name: 'probe', routes: [{ ...routesOf(CALLERS)[0], model: 'probe', words: '400' }] }],
  })
  // It is asked when the burst is over: what it tells brings money back, for which nobody could wait.
  await world.sandbox.control('PUT', '/generations', { delayMs: 3_600_000 })
  const engine = await world.startEngine()
  const probe = await world.openRun({ direct: 100_000_000_000n })
  await executeCall(engine, probe.request('probe', '', { body, model: 'probe' }))
  const [attempt] = await attemptsOf(world, probe)
  if (!attempt) throw new Error('the probe made no attempt')
  const budget = budgetOf(attempt.held)
  return { world, run: await world.openRun({ direct: budget }), hold: attempt.held, budget }
}

/** All callers at once, each as patient as he is told to be. */
export function callAll(
  { run }: Pick<Burst, 'run'>,
  engines: readonly Engine[],
  choices: {
    readonly body: ChatBody
    readonly mayRepeat?: number
    readonly modelOf?: (caller: number) => string
  },
): Promise<readonly CallResult[]> {
  const { body, mayRepeat = 1, modelOf = () => 'steady' } = choices
  return Promise.all(
    Array.from({ length: CALLERS }, (_, caller) =>
      askPatiently(engines[caller % engines.length], () =>
        run.request(`call/${caller}`, '', { body, mayRepeat, model: modelOf(caller) }),
      ),
    ),
  )
}

function askPatiently(engine: Engine | undefined, request: () => Parameters<typeof executeCall>[1]) {
  if (!engine) throw new Error('no engine')
  return pollUntil(
    async () => {
      const result = await executeCall(engine, request())
      return result.kind !== 'waiting' && result
    },
    { what: 'the end of a call', deadlineMs: PATIENCE_MS, intervalMs: 500 },
  )
}

/** What a burst came to. Amounts in nano. */
export interface Outcome {
  readonly answered: number
  readonly exhausted: number
  readonly failed: number
  readonly requests: number
  readonly billed: bigint
  /** What our own books say. */
  readonly charged: bigint
  readonly free: bigint
}

export async function outcomeOf({ world, run }: Burst, results: readonly CallResult[]): Promise<Outcome> {
  const attempts = await attemptsOf(world, run)
  const { envelope } = await reportOf(world, run)
  const count = (kind: CallResult['kind']) => results.filter((result) => result.kind === kind).length
  const seen = (await requestsSeen(world.sandbox)).filter(({ model }) => !model.startsWith('probe'))
  return {
    answered: count('answered'),
    exhausted: count('exhausted'),
    failed: count('failed'),
    requests: seen.length,
    billed: seen.reduce((sum, { billed }) => sum + nanoOf(billed), 0n),
    charged: attempts.reduce((sum, { charged }) => sum + charged, 0n),
    free: envelope.pockets.reduce((sum, { free }) => sum + nanoOf(free.amount), 0n),
  }
}

/** With two decimals, rounded up: 1.00 is never more than all of it. */
export function factorOf(part: bigint, whole: bigint): string {
  const hundredths = (part * 100n + whole - 1n) / whole
  return `${hundredths / 100n}.${(hundredths % 100n).toString().padStart(2, '0')}`
}
