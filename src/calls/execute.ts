import type { CatalogModel } from '#contracts/catalog.ts'
import { attemptDetailSchema, planSchema, storedPlan } from '#contracts/stored.ts'
import { canonical, loadCall, noteStop, openCall, pocketsOf, type CallStory, type Step } from '#db/call.ts'
import { catalogAt, newestCatalog } from '#db/catalog.ts'
import { deriveId, newId, sha256 } from '#db/ids.ts'
import type { ReserveItem } from '#db/hold.ts'
import { invariant } from '#domain/invariant.ts'
import { decide, type Decision, type PastAttempt, type StopReason } from '#domain/policy.ts'
import { setTimeout as delay } from 'node:timers/promises'
import { performAttempt, reservePatiently } from './attempt.ts'
import type { CallRequest, CallResult } from './call.ts'
import { answered, exhausted, failed } from './call-result.ts'
import { ledgerId } from './charge.ts'
import { MAX_ATTEMPTS, MAX_WAIT_MS, type Engine } from './engine.ts'
import { isAbandoned, takeOver } from './lost.ts'
import { chooseRoutes, planAttempt, type RouteChoice } from './plan.ts'
import { sellPriceOf } from './sell.ts'

const OWNER_POLL_MS = [25, 50, 100, 200, 400] as const
/** How much earlier than its deadline the engine stops waiting, so that its answer still arrives. */
const RETURN_MARGIN_MS = 1_000
/** After a wait that led nowhere, the caller asks again after this. */
const ASK_AGAIN_MS = 5_000

/** The longest window of a limit, an hour, that a call waits for: longer ones are budgets, and their end is told. */
const LONGEST_THROTTLE_MS = 3_600_000

/** One execution of a call: what stays the same while its attempts come and go. */
interface Execution {
  readonly engine: Engine
  readonly request: CallRequest
  readonly callId: string
  /** Names this execution as the owner of the attempts it is granted. */
  readonly owner: string
  readonly choice: RouteChoice
  /** Refusals up to this attempt number belong to an earlier pass: the money may be back. */
  readonly passedNumber: number
}

/**
 * Executes one logical model call: plan, hold, send, settle, over attempts, until there is an answer or the policy says
 * stop. The key is (run, path, digest of the request): a call that has an answer is never sent again, and of many
 * executors at once one sends and all return its answer.
 *
 * Throws only when the store is away or a bug shows; everything the world does is a `CallResult`.
 */
export async function executeCall(engine: Engine, request: CallRequest): Promise<CallResult> {
  const digest = sha256(canonical({ model: request.model, ...request.body }))
  const callId = deriveId(request.runId, 'call', request.path, digest.toString('hex'))
  const story = await ensureCall(engine, request, { callId, digest })
  if ('kind' in story) return story
  if (story.state === 'answered') return answered(callId, story)
  const model = modelOf(await catalogAt(engine.db, story.catalogVersion), request.model)
  if (!model) return failed(callId, 'unknown_model', `the catalog has no model ${request.model}`)
  const owner = newId(engine.nowMs())
  engine.instance.owners.add(owner)
  try {
    const choice = await routesFor(engine, request, model)
    const passedNumber = story.steps.at(-1)?.number ?? 0
    return await pursue({ engine, request, callId, owner, choice, passedNumber })
  } finally {
    engine.instance.owners.delete(owner)
  }
}

async function ensureCall(
  engine: Engine,
  request: CallRequest,
  key: { readonly callId: string; readonly digest: Buffer },
): Promise<CallStory | CallResult> {
  const known = await loadCall(engine.db, request.scope, key.callId)
  if (known) return known
  const { version, catalog } = await newestCatalog(engine.db)
  if (!modelOf(catalog, request.model)) {
    return failed(key.callId, 'unknown_model', `the catalog has no model ${request.model}`)
  }
  await openCall(engine.db, request.scope, {
    id: key.callId,
    runId: request.runId,
    envelopeId: request.envelopeId,
    apiKeyId: request.apiKeyId,
    path: request.path,
    digest: key.digest,
    model: request.model,
    catalogVersion: version,
    requestId: deriveId(request.runId, 'request', key.callId),
    request: request.body,
  })
  const opened = await loadCall(engine.db, request.scope, key.callId)
  invariant(opened, `call ${key.callId} is gone`)
  return opened
}

function routesFor(engine: Engine, request: CallRequest, model: CatalogModel): Promise<RouteChoice> {
  return pocketsOf(engine.db, request.scope, request.envelopeId).then((pockets) =>
    chooseRoutes(model, {
      pockets,
      hasProvider: (name) => engine.providers.has(name),
      priceOf: (route) => sellPriceOf(engine.db, request.scope, route),
    }),
  )
}

/** The loop. Each turn reads what is stored and takes one step, so that any process can take the next. */
async function pursue(execution: Execution): Promise<CallResult> {
  const { engine, request, callId } = execution
  for (;;) {
    const story = await loadCall(engine.db, request.scope, callId)
    invariant(story, `call ${callId} is gone`)
    if (story.state === 'answered') return answered(callId, story)
    const open = story.steps.find((step) => step.state === 'sent')
    const result = open ? await awaitOwner(execution, open) : await step(execution, story.steps)
    if (result) return result
  }
}

async function step(execution: Execution, steps: readonly Step[]): Promise<CallResult | undefined> {
  const { engine, choice } = execution
  const relevant = steps.filter((each) => each.outcome !== 'hold_refused' || each.number > execution.passedNumber)
  const decision = decide({
    routes: choice.candidates.map((candidate) => candidate.route.name),
    attempts: relevant.map(pastAttempt),
    mayRepeat: execution.request.mayRepeat,
    maxAttempts: MAX_ATTEMPTS,
    jitter: engine.random(),
  })
  if (decision.kind === 'stop') return stop(execution, decision.reason, relevant)
  const waited = (await waitFor(execution, decision.afterMs)) ?? unreadiness(execution, decision.route)
  return waited ?? attempt(execution, decision, { steps, last: relevant.at(-1) })
}

/** Nothing is held that could not be sent at once, and with all the time its route may take. */
function unreadiness(execution: Execution, route: string): CallResult | undefined {
  const { engine, request, callId, choice } = execution
  const timeoutMs = choice.candidates.find((each) => each.route.name === route)?.route.timeoutMs ?? 0
  const hasTime = request.deadlineMs - engine.nowMs() > timeoutMs + RETURN_MARGIN_MS
  if (hasTime && engine.instance.isFresh()) return undefined
  return { kind: 'waiting', callId, untilMs: engine.nowMs() + ASK_AGAIN_MS }
}

/** Holds the worst case and, when granted, sends. Undefined: look again at what is stored. */
async function attempt(
  execution: Execution,
  decision: Extract<Decision, { kind: 'try' }>,
  past: { readonly steps: readonly Step[]; readonly last: Step | undefined },
): Promise<CallResult | undefined> {
  const { engine, request, callId } = execution
  const candidate = execution.choice.candidates.find((each) => each.route.name === decision.route)
  invariant(candidate, `the policy chose ${decision.route}, which is no candidate`)
  const { plan, amount } = planAttempt(candidate, {
    body: request.body,
    why: decision.why,
    after: past.last ? { attempt: past.last.number, outcome: past.last.outcome } : null,
    skipped: execution.choice.skipped,
  })
  const key = { runId: request.runId, callId, number: (past.steps.at(-1)?.number ?? 0) + 1 }
  const item: ReserveItem = {
    holdId: ledgerId(key, 'hold'),
    callId,
    attempt: key.number,
    runId: request.runId,
    envelopeId: request.envelopeId,
    amount,
    tokens: BigInt(plan.inputTokenBound) + BigInt(plan.maxOutputTokens),
    owner: execution.owner,
    plan: storedPlan(plan),
  }
  const pocket = { projectId: request.scope.projectId, accountId: candidate.pocket.accountId }
  const until = { signal: waitSignal(execution), deadlineMs: request.deadlineMs - RETURN_MARGIN_MS }
  const answer = await reservePatiently(engine, { pocket, item }, until)
  switch (answer.verdict) {
    case 'granted':
      await performAttempt(engine, request, { key, pocket, plan, held: amount })
      return undefined
    case 'taken':
    case 'answered':
    case 'exhausted':
      return undefined
    case 'busy':
    case 'owner_dead':
      return { kind: 'waiting', callId, untilMs: engine.nowMs() + ASK_AGAIN_MS }
    case 'frozen':
    case 'closing':
    case 'closed':
      return { kind: 'gate', callId, gate: answer.verdict }
    case 'unknown_pocket':
    case 'unknown_call':
    case 'invalid_amount':
    case 'mismatch':
    case 'short':
    case 'lease_short':
    case 'behind':
      throw new Error(`reserve answered ${answer.verdict} for attempt ${key.number} of call ${callId}`)
  }
}

/** Another executor has sent it: its answer is ours too. Only an abandoned attempt is taken over. */
async function awaitOwner(execution: Execution, open: Step): Promise<CallResult | undefined> {
  const { engine, request, callId } = execution
  invariant(open.instanceId !== null && open.owner !== null, 'a sent attempt has an owner')
  const lost = { ...open, callId, runId: request.runId, instanceId: open.instanceId, owner: open.owner }
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
  const { engine, request, callId } = execution
  if (request.signal.aborted) return failed(callId, 'aborted', 'the caller is gone')
  if (waitMs <= 0) return undefined
  const untilMs = engine.nowMs() + waitMs
  if (waitMs > MAX_WAIT_MS || untilMs > request.deadlineMs - RETURN_MARGIN_MS)
    return { kind: 'waiting', callId, untilMs }
  await delay(waitMs, undefined, { signal: request.signal }).catch(() => {})
  return undefined
}

function waitSignal(execution: Execution): AbortSignal {
  const left = execution.request.deadlineMs - RETURN_MARGIN_MS - execution.engine.nowMs()
  return AbortSignal.any([execution.request.signal, AbortSignal.timeout(Math.max(1, Math.min(MAX_WAIT_MS, left)))])
}

async function stop(execution: Execution, reason: StopReason, steps: readonly Step[]): Promise<CallResult> {
  const { engine, request, callId, choice } = execution
  const last = steps.at(-1)
  const detail = last ? describe(last) : choice.skipped.map((each) => `${each.route}: ${each.reason}`).join(', ')
  const noted = last === undefined && choice.candidates.length === 0 ? 'no_route' : reason
  await noteStop(engine.db, request.scope, { callId, reason: noted, detail })
  const refused = steps.findLast((each) => each.kind === 'refusal')
  if (reason === 'money_exhausted' && refused) return throttled(execution, steps) ?? exhausted(callId, refused)
  if (reason === 'aborted' && !request.signal.aborted) return { kind: 'gate', callId, gate: 'closing' }
  return failed(callId, noted, detail)
}

/** A window that ends soon throttles, it does not stop: the call waits for the next one. */
function throttled({ engine, callId, passedNumber }: Execution, steps: readonly Step[]): CallResult | undefined {
  const resets = steps.filter((each) => each.number > passedNumber).flatMap((each) => each.resetsInMs ?? [])
  const soonestMs = Math.min(...resets)
  if (soonestMs > LONGEST_THROTTLE_MS) return undefined
  return { kind: 'waiting', callId, untilMs: engine.nowMs() + Math.max(1, soonestMs) }
}

function pastAttempt(step: Step): PastAttempt {
  const { route } = planSchema.parse(step.plan)
  const retryAfterMs = attemptDetailSchema.parse(step.detail)?.retryAfterMs
  return {
    number: step.number,
    route,
    outcome: step.outcome,
    sinceMs: step.sinceMs,
    ...(retryAfterMs != null && { retryAfterMs }),
  }
}

function describe(step: Step): string {
  const message = attemptDetailSchema.parse(step.detail)?.message
  return `attempt ${step.number} on ${planSchema.parse(step.plan).route}: ${step.outcome}${message ? ` (${message})` : ''}`
}

function modelOf(catalog: { readonly models: readonly CatalogModel[] }, name: string): CatalogModel | undefined {
  return catalog.models.find((model) => model.name === name)
}
