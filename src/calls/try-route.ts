import { answerSchema, outputBoundOf, storedPlan, usageSchema } from '#contracts/stored.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import { noteStop, type Step } from '#db/call.ts'
import type { ReserveAnswer, ReserveItem } from '#db/hold.ts'
import { json } from '#db/json.ts'
import { roomFor } from '#db/room.ts'
import { noteDistrust } from '#db/route-distrust.ts'
import { offerAnswer, type NewCall } from '#db/opened-call.ts'
import { invariant } from '#domain/invariant.ts'
import type { Decision } from '#domain/policy.ts'
import { performAttempt, reservePatiently, type GrantedAttempt, type Performed } from './attempt.ts'
import type { Tight } from '#contracts/call-choices.ts'
import type { CallAnswer, CallRequest, CallResult, HeldMoney } from './call.ts'
import { failed } from './call-result.ts'
import { ledgerId } from './charge.ts'
import { MAX_WAIT_MS, type Engine } from './engine.ts'
import { choicesIn, outputOn, planAttempt, type AttemptRequest, type Candidate, type RouteChoice } from './plan.ts'
import type { RouteTicket } from './route-desk.ts'

/** How much earlier than its deadline the engine stops waiting, so that its answer still arrives. */
export const RETURN_MARGIN_MS = 1_000
/** After a wait that led nowhere, the caller asks again after this. */
export const ASK_AGAIN_MS = 5_000

const REFUSE: Tight = Object.freeze({ policy: 'refuse' })

/** One execution of a call: what stays the same while its attempts come and go. */
export interface Execution {
  readonly engine: Engine
  readonly request: CallRequest
  readonly call: NewCall
  /** Names this execution as the owner of the attempts it is granted. */
  readonly owner: string
  readonly choice: RouteChoice
  /** Refusals up to this attempt number belong to an earlier pass: the money may be back. */
  readonly passedNumber: number
  /** Routes on which there was no room, with the moment to ask again, in milliseconds of the engine's clock. */
  readonly closed: Map<string, number>
}

/** What an attempt came to. `look`: it is stored how it ended. `known`: something of the call was stored before. */
export type Turn = { readonly kind: 'done'; readonly result: CallResult } | { readonly kind: 'look' | 'known' }

interface Place {
  readonly number: number
  readonly last: Step | undefined
  /** Left out when the call is open. */
  readonly opens: NewCall | undefined
}

/** Holds the worst case on a route and, when granted, sends. */
export async function tryRoute(
  execution: Execution,
  decision: Extract<Decision, { kind: 'try' }>,
  place: Place,
): Promise<Turn> {
  const { engine, choice } = execution
  const candidate = choice.candidates.find(({ route }) => route.name === decision.route)
  invariant(candidate, `the policy chose ${decision.route}, which is no candidate`)
  const { body } = execution.request
  const tokens = candidate.prompt.tokens + outputOn(candidate, body) * choicesIn(body)
  const taken = await patiently(execution, (signal) => engine.routes.take(candidate.route, tokens, signal))
  if (!taken.ok) {
    execution.closed.set(candidate.route.name, engine.nowMs() + taken.waitMs)
    return { kind: place.opens ? 'known' : 'look' }
  }
  const { ticket } = taken
  try {
    return await tryWith(execution, candidate, { ...place, ticket, why: decision.why })
  } finally {
    // Only the first time counts: an attempt that was sent has told how it ended.
    ticket.done({ outcome: null, retryAfterMs: null, tokens: 0, held: 0n, charged: null })
  }
}

async function tryWith(
  execution: Execution,
  candidate: Candidate,
  place: Place & { readonly ticket: RouteTicket; readonly why: 'first' | 'retry' | 'fallback' },
): Promise<Turn> {
  const { engine, request, call } = execution
  const { ticket } = place
  const { plan, amount } = await planOf(execution, candidate, place)
  const key = { runId: request.runId, callId: call.id, number: place.number }
  const item: ReserveItem = {
    holdId: ledgerId(key, 'hold'),
    callId: call.id,
    attempt: key.number,
    runId: request.runId,
    envelopeId: request.envelopeId,
    amount,
    tokens: BigInt(plan.inputTokenBound) + BigInt(outputBoundOf(plan)),
    owner: execution.owner,
    plan: storedPlan(plan),
    opens: place.opens,
  }
  const pocket = { projectId: request.scope.projectId, accountId: candidate.pocket.accountId }
  const deadlineMs = request.deadlineMs - RETURN_MARGIN_MS
  const answer = await patiently(execution, (signal) =>
    reservePatiently(engine, { pocket, item }, { signal, deadlineMs }),
  )
  if (answer.verdict === 'granted') return perform(execution, { key, pocket, plan, held: amount }, ticket)
  return refused(execution, answer)
}

async function planOf(
  { engine, request, choice }: Execution,
  candidate: Candidate,
  place: Place & { readonly ticket: RouteTicket; readonly why: 'first' | 'retry' | 'fallback' },
) {
  const { last, why, ticket } = place
  const tight = request.tight ?? REFUSE
  const roomAsked = { accountId: candidate.pocket.accountId, path: request.path }
  return planAttempt(candidate, {
    body: request.body,
    why,
    after: last ? { attempt: last.number, outcome: last.outcome } : null,
    skipped: [...choice.skipped, ...passedOver({ engine, choice }, candidate)],
    distrustPpm: ticket.distrustPpm,
    tight,
    room: tight.policy === 'clamp' ? await roomFor(engine.db, request.scope, roomAsked) : undefined,
  })
}

/** Better routes that are closed for a while. */
function passedOver(
  { engine, choice }: Pick<Execution, 'engine' | 'choice'>,
  candidate: Candidate,
): AttemptRequest['skipped'] {
  return choice.candidates.slice(0, choice.candidates.indexOf(candidate)).flatMap(({ route }) => {
    const readiness = engine.routes.readiness(route)
    return readiness.ready ? [] : [{ route: route.name, reason: readiness.why }]
  })
}

/** What a hold that was not granted comes to. */
function refused({ engine, call }: Execution, { verdict, replayed }: ReserveAnswer): Turn {
  const callId = call.id
  switch (verdict) {
    case 'exhausted':
      return { kind: replayed ? 'known' : 'look' }
    case 'taken':
    case 'answered':
    case 'reopened':
      return { kind: 'known' }
    case 'busy':
    case 'owner_dead':
      return { kind: 'done', result: { kind: 'waiting', callId, untilMs: engine.nowMs() + ASK_AGAIN_MS } }
    case 'frozen':
    case 'closing':
    case 'closed':
      return { kind: 'done', result: { kind: 'gate', callId, gate: verdict } }
    case 'granted':
    case 'unknown_pocket':
    case 'unknown_call':
    case 'invalid_amount':
    case 'mismatch':
    case 'short':
    case 'lease_short':
    case 'behind':
      throw new Error(`reserve answered ${verdict} for call ${callId}`)
  }
}

async function perform(execution: Execution, granted: GrantedAttempt, ticket: RouteTicket): Promise<Turn> {
  const { engine, request, call } = execution
  const { onDelta, onHeld } = request
  onHeld?.(heldMoney(call.id, granted))
  let wasTold = false
  const heard = onDelta && {
    onDelta: (delta: Parameters<typeof onDelta>[0]) => {
      wasTold = true
      onDelta(delta)
    },
  }
  const performed = await performAttempt(engine, { ...request, ...heard }, { ...granted, ticket })
  const { result, charged, answer } = performed
  if (charged !== null && charged > granted.held) await tellDistrust(execution, granted, charged)
  if (answer) {
    const receipt = request.withReceipt && receiptOf(engine, granted, performed)
    return { kind: 'done', result: { ...(await answeredNow(execution, answer)), receipt, reach: performed.reach } }
  }
  if (!wasTold || result.outcome === 'answered' || result.outcome === 'aborted') return { kind: 'look' }
  // What was told cannot be taken back: another attempt would tell a second beginning.
  const detail = `attempt ${granted.key.number} on ${granted.plan.route}: ${result.outcome} (${result.detail})`
  await noteStop(engine.db, request.scope, { callId: call.id, reason: 'stream_broken', detail })
  return { kind: 'done', result: failed(call.id, 'stream_broken', detail) }
}

function heldMoney(callId: string, { held, plan }: GrantedAttempt): HeldMoney {
  const { route, balanceClass, currency, bound, inputTokenBound } = plan
  const inputTokens = bound?.by === 'tokenizer' ? inputTokenBound : undefined
  return { callId, route, balanceClass, held, currency, inputTokens }
}

/** The run is told that its route billed above a hold: the money is booked already, and the next holds are higher. */
async function tellDistrust(
  { engine, request, call, choice }: Execution,
  { key, plan, held }: GrantedAttempt,
  charged: bigint,
): Promise<void> {
  const { runId, scope } = request
  const route = choice.candidates.find((each) => each.route.name === plan.route)?.route
  if (runId === null || !route) return
  const distrustPpm = engine.routes.distrustPpm(route)
  const { provider, upstreamModel, currency } = plan
  const named = { runId, callId: call.id, attempt: key.number, route: plan.route, provider, upstreamModel, currency }
  await noteDistrust(engine.db, scope, { ...named, held, charged, distrustPpm })
}

/** The answer that was settled with: as it was stored, so that whoever asks again is told the same. */
async function answeredNow(
  { engine, request, call }: Execution,
  { id: answerId, body }: NonNullable<Performed['answer']>,
): Promise<Extract<CallResult, { kind: 'answered' }>> {
  if (request.reuse) await offerAnswer(engine.db, request.scope, { callId: call.id, answerId, digest: call.digest })
  const answer: CallAnswer = answerSchema.parse(JSON.parse(json(body)))
  return { kind: 'answered', callId: call.id, answerId, answer }
}

/** What the ledger would tell: known without a look, unless there were other attempts, or not all of the charge fitted its hold. */
function receiptOf(
  { nowMs }: Engine,
  { key, plan, pocket, held }: GrantedAttempt,
  { charged, usage }: Performed,
): CallReceipt | undefined {
  if (key.number > 1 || charged === null || charged > held) return undefined
  const { route, balanceClass, currency } = plan
  const { accountId } = pocket
  return {
    route,
    balanceClass,
    currency,
    charged,
    accountId,
    usage: usageSchema.parse(usage) ?? null,
    attempts: 1,
    answeredAt: new Date(nowMs()),
  }
}

/**
 * Waits for something at most so long, and only while the caller is there. The timer and listener end with the wait:
 * `AbortSignal.timeout` would live on until it fires.
 */
async function patiently<Result>(
  { engine, request }: Execution,
  wait: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController()
  const giveUp = () => controller.abort()
  const leftMs = request.deadlineMs - RETURN_MARGIN_MS - engine.nowMs()
  const timer = setTimeout(giveUp, Math.max(1, Math.min(MAX_WAIT_MS, leftMs)))
  request.signal.addEventListener('abort', giveUp, { once: true })
  if (request.signal.aborted) giveUp()
  try {
    return await wait(controller.signal)
  } finally {
    clearTimeout(timer)
    request.signal.removeEventListener('abort', giveUp)
  }
}
