import type { Route } from '#contracts/catalog.ts'
import { attemptDetailSchema, planSchema } from '#contracts/stored.ts'
import { loadCall, noteStop, type Step } from '#db/call.ts'
import { invariant } from '#domain/invariant.ts'
import { decide, isPassing, type Decision, type PastAttempt, type StopReason } from '#domain/policy.ts'
import { setTimeout as delay } from 'node:timers/promises'
import type { CallResult } from './call.ts'
import { answered, failed, refusalIn } from './call-result.ts'
import { MAX_ATTEMPTS, MAX_TOTAL_MS, MAX_WAIT_MS } from './engine.ts'
import { isAbandoned, takeOver } from './lost.ts'
import type { RouteChoice } from './plan.ts'
import { ASK_AGAIN_MS, RETURN_MARGIN_MS, tryRoute, type Execution, type Turn } from './try-route.ts'

const OWNER_POLL_MS = [25, 50, 100, 200, 400] as const
/** The longest window of a limit, an hour, that a call waits for: longer ones are budgets, and their end is told. */
const LONGEST_THROTTLE_MS = 3_600_000

/** The loop. Each turn reads what is stored and takes one step, so that any process can take the next. */
export async function pursue(execution: Execution): Promise<CallResult> {
  const { engine, request, call } = execution
  for (;;) {
    const story = await loadCall(engine.db, request.scope, call.id)
    invariant(story, `call ${call.id} is gone`)
    if (story.state === 'answered') return answered(call.id, story)
    const open = story.steps.find((step) => step.state === 'sent')
    const result = open ? await awaitOwner(execution, open) : await step(execution, story.steps)
    if (result) return result
  }
}

/**
 * The first attempt of a call that may be new: it opens the call with its hold. Nothing is known of the call yet, so what
 * the ledger refuses for any other reason than money is looked at.
 */
export async function attemptFirst(execution: Execution): Promise<Turn> {
  const decision = decideOn(execution, [])
  if (decision.kind === 'stop' || decision.afterMs > 0) return { kind: 'known' }
  const unready = unreadiness(execution, decision.route)
  if (unready) return { kind: 'known' }
  const turn = await tryRoute(execution, decision, { number: 1, last: undefined, opens: execution.call })
  return turn.kind === 'done' && turn.result.kind === 'gate' ? { kind: 'known' } : turn
}

async function step(execution: Execution, steps: readonly Step[]): Promise<CallResult | undefined> {
  const isOver = (each: Step) => each.number <= execution.passedNumber && isOfItsPass(execution, each)
  const refitted = refittedOf(execution, steps)
  const relevant = steps.filter((each) => !isOver(each) && !refitted.has(each))
  const decision = decideOn(execution, relevant)
  if (decision.kind === 'stop') return stop(execution, decision.reason, relevant)
  const waited = (await waitFor(execution, decision.afterMs)) ?? unreadiness(execution, decision.route)
  if (waited) return waited
  const number = (steps.at(-1)?.number ?? 0) + 1
  const turn = await tryRoute(execution, decision, { number, last: relevant.at(-1), opens: undefined })
  return turn.kind === 'done' ? turn.result : undefined
}

/** What says nothing any more in a later pass: the money may be back, and so may a provider. */
function isOfItsPass({ request }: Execution, { outcome }: Step): boolean {
  return outcome === 'hold_refused' || (request.again === true && isPassing(outcome))
}

/** As often a call is fitted again into what others have left of the money since it looked. */
const MOST_REFITS = 4

/** Refused holds of a call whose output is fitted into what is free, above its floor: there may be room for less. */
function refittedOf({ request: { tight } }: Execution, steps: readonly Step[]): ReadonlySet<Step> {
  if (tight?.policy !== 'clamp') return new Set()
  const refused = steps.filter(({ kind, measure, plan }) => {
    return kind === 'refusal' && measure !== 'calls' && planSchema.parse(plan).maxOutputTokens > tight.floorTokens
  })
  return new Set(refused.slice(0, MOST_REFITS))
}

function decideOn(execution: Execution, steps: readonly Step[]): Decision {
  const { engine, request, choice } = execution
  return decide({
    routes: choice.candidates.map(({ route }) => ({ name: route.name, readyInMs: readyInMs(execution, route) })),
    attempts: steps.map(pastAttempt),
    mayRepeat: request.mayRepeat,
    granted: request.granted ?? 0,
    again: request.again === true && !request.signal.aborted,
    maxAttempts: MAX_ATTEMPTS,
    maxTotalMs: MAX_TOTAL_MS,
    jitter: engine.random(),
  })
}

/** A route's circuit, its limits, and what was heard when room on it was asked for. */
function readyInMs({ engine, closed }: Execution, route: Route): number {
  const readiness = engine.routes.readiness(route)
  const closedForMs = (closed.get(route.name) ?? 0) - engine.nowMs()
  return Math.max(0, closedForMs, readiness.ready ? 0 : readiness.waitMs)
}

/** Nothing is held that could not be sent at once, and with all the time its route may take. */
function unreadiness(execution: Execution, route: string): CallResult | undefined {
  const { engine, request, call, choice } = execution
  const callId = call.id
  const timeoutMs = choice.candidates.find((each) => each.route.name === route)?.route.timeoutMs ?? 0
  const hasTime = request.deadlineMs - engine.nowMs() > timeoutMs + RETURN_MARGIN_MS
  if (hasTime && engine.instance.isFresh()) return undefined
  return { kind: 'waiting', callId, untilMs: engine.nowMs() + ASK_AGAIN_MS }
}

/** Another executor has sent it: its answer is ours too. Only an abandoned attempt is taken over. */
async function awaitOwner(execution: Execution, open: Step): Promise<CallResult | undefined> {
  const { engine, request, call } = execution
  const callId = call.id
  invariant(open.instanceId !== null && open.owner !== null, 'a sent attempt has an owner')
  const requestId = attemptDetailSchema.parse(open.detail)?.providerRequestId ?? null
  const { instanceId, owner } = open
  const lost = { ...open, callId, runId: request.runId, instanceId, owner, requestId }
  if (isAbandoned(engine, lost)) {
    await takeOver(engine, request.scope, lost)
    return undefined
  }
  const started = engine.nowMs()
  for (let turn = 0; ; turn += 1) {
    const pauseMs = OWNER_POLL_MS[Math.min(turn, OWNER_POLL_MS.length - 1)] ?? 400
    const waited = await waitFor(execution, pauseMs)
    if (waited) return waited
    const story = await loadCall(engine.db, request.scope, callId)
    const same = story?.steps.find((each) => each.number === open.number)
    if (same?.state !== 'sent' || isAbandoned(engine, { ...lost, ownerAlive: same.ownerAlive })) return undefined
    if (engine.nowMs() - started > MAX_WAIT_MS)
      return { kind: 'waiting', callId, untilMs: engine.nowMs() + ASK_AGAIN_MS }
  }
}

/** Waits here when it is short, and hands longer waits to the caller. */
async function waitFor(execution: Execution, waitMs: number): Promise<CallResult | undefined> {
  const { engine, request, call } = execution
  const callId = call.id
  if (request.signal.aborted) return failed(callId, 'aborted', 'the caller is gone')
  if (waitMs <= 0) return undefined
  const untilMs = engine.nowMs() + waitMs
  if (waitMs > MAX_WAIT_MS || untilMs > request.deadlineMs - RETURN_MARGIN_MS)
    return { kind: 'waiting', callId, untilMs }
  await delay(waitMs, undefined, { signal: request.signal }).catch(() => {})
  return undefined
}

async function stop(execution: Execution, reason: StopReason, steps: readonly Step[]): Promise<CallResult> {
  const { engine, request, call, choice } = execution
  const callId = call.id
  const last = steps.at(-1)
  const unroutable = last === undefined && choice.candidates.length === 0 ? whyUnroutable(choice) : undefined
  const noted = unroutable?.reason ?? reason
  const detail = unroutable?.detail ?? (last ? describe(last) : '')
  await noteStop(engine.db, request.scope, { callId, reason: noted, detail })
  const refused = refusedOf(steps)
  if (reason === 'money_exhausted' && refused)
    return throttled(execution, steps) ?? { kind: 'exhausted', callId, refusal: refusalIn(refused) }
  if (reason === 'aborted' && !request.signal.aborted) return { kind: 'gate', callId, gate: 'closing' }
  const mayPass = reason === 'routes_unavailable' || (reason === 'routes_exhausted' && last && isPassing(last.outcome))
  const { parameter } = unroutable ?? {}
  return {
    ...failed(callId, noted, detail),
    ...(last && { outcome: last.outcome }),
    ...(mayPass && { isPassing: true }),
    ...(parameter !== undefined && { parameter }),
  }
}

/** What tells more than that there is no route, when it is so of all. */
const LACKS: ReadonlySet<string> = new Set(['lacks_choices', 'lacks_parameter', 'context_too_small'])

/** Why no route may serve the call at all: nothing is sent, and nothing is held. */
function whyUnroutable({ skipped, tooLarge }: RouteChoice): {
  readonly reason: string
  readonly detail: string
  readonly parameter?: string
} {
  const detail = skipped.map((each) => `${each.route}: ${each.reason} ${each.parameter ?? ''}`.trimEnd()).join(', ')
  const [first] = skipped
  if (first && LACKS.has(first.reason) && skipped.every(({ reason }) => reason === first.reason)) {
    return { reason: first.reason, detail, ...(first.parameter !== undefined && { parameter: first.parameter }) }
  }
  if (!tooLarge) return { reason: 'no_route', detail }
  const { tokens, cap } = tooLarge
  return {
    reason: 'prompt_too_large',
    detail: `the prompt may have ${tokens} tokens, and inputTokensPerCall allows ${cap}`,
  }
}

/** The refusal that stands for all: the last, unless another route may have room some day, and that one never has. */
function refusedOf(steps: readonly Step[]): Step | undefined {
  const refused = steps.filter(({ kind }) => kind === 'refusal')
  return refused.findLast(({ neverFits }) => !neverFits) ?? refused.at(-1)
}

/** A window that ends soon throttles, it does not stop: the call waits for the next one. */
function throttled({ engine, call, passedNumber }: Execution, steps: readonly Step[]): CallResult | undefined {
  const resetsInMs = (each: Step) => each.resetsInMs ?? Infinity
  const [soonest] = steps
    .filter((each) => each.number > passedNumber)
    .toSorted((one, other) => resetsInMs(one) - resetsInMs(other))
  if (!soonest || resetsInMs(soonest) > LONGEST_THROTTLE_MS) return undefined
  const untilMs = engine.nowMs() + Math.max(1, resetsInMs(soonest))
  return { kind: 'waiting', callId: call.id, untilMs, refusal: refusalIn(soonest) }
}

function pastAttempt(step: Step): PastAttempt {
  const { route, timeoutMs } = planSchema.parse(step.plan)
  const retryAfterMs = attemptDetailSchema.parse(step.detail)?.retryAfterMs
  return {
    number: step.number,
    route,
    outcome: step.outcome,
    sinceMs: step.sinceMs,
    // One whose process died was found so who knows how much later.
    tookMs: Math.min(step.sentAgoMs - step.sinceMs, timeoutMs),
    ...(retryAfterMs != null && { retryAfterMs }),
  }
}

function describe(step: Step): string {
  const message = attemptDetailSchema.parse(step.detail)?.message
  return `attempt ${step.number} on ${planSchema.parse(step.plan).route}: ${step.outcome}${message ? ` (${message})` : ''}`
}
