import type { CatalogModel } from '#contracts/catalog.ts'
import { canonical, loadCall, type CallStory } from '#db/call.ts'
import type { CatalogVersion } from '#db/catalog.ts'
import { erasePayloads } from '#db/erasure.ts'
import { deriveId, newId, sha256 } from '#db/ids.ts'
import {
  forkedAnswer,
  openAnswered,
  openCall,
  reusableAnswer,
  type NewCall,
  type ReusableAnswer,
} from '#db/opened-call.ts'
import { invariant } from '#domain/invariant.ts'
import type { CallRequest, CallResult } from './call.ts'
import { answered, failed, notStored } from './call-result.ts'
import type { Engine } from './engine.ts'
import { payAll, chooseRoutes, type RouteChoice } from './plan.ts'
import { promptBounds } from './prompt-size.ts'
import { attemptFirst, pursue } from './pursue.ts'
import type { Execution } from './try-route.ts'

/**
 * In characters. A larger request is stored before its hold: a commit has many holds and five seconds, and in 64 images of
 * 3 MB it was given up and tried again for ever (measured).
 */
const LARGE_REQUEST = 65_536

/**
 * Executes one logical model call: plan, hold, send, settle, over attempts, until there is an answer or the policy says
 * stop. The key is (run, path, digest of the request): a call that has an answer is never sent again, and of many
 * executors at once one sends and all return its answer.
 *
 * Throws only when the store is away or a bug shows; everything the world does is a `CallResult`.
 */
export async function executeCall(engine: Engine, request: CallRequest): Promise<CallResult> {
  const owner = newId(engine.nowMs())
  engine.instance.owners.add(owner)
  try {
    const newest = await engine.shelf.newest()
    const asked = canonical({ model: request.model, ...request.body })
    const call = newCall(request, { asked, catalogVersion: newest.version })
    const isLarge = asked.length > LARGE_REQUEST
    const result =
      (await reuse(engine, request, call)) ?? (await begin(engine, request, { call, newest, owner, isLarge }))
    // Whoever slept until its run was erased has just stored what it asks, where nothing would look for it any more.
    if (result.kind === 'gate' && result.gate === 'closed') await erasePayloads(engine.db, [call.requestId])
    return result
  } finally {
    engine.instance.owners.delete(owner)
  }
}

/** The id of a call: of the run and the path that ask, and of the request as asked. */
export function callIdOf(request: Pick<CallRequest, 'runId' | 'envelopeId' | 'path' | 'model' | 'body'>): string {
  return idOf(request, sha256(canonical({ model: request.model, ...request.body })))
}

type Asker = Pick<CallRequest, 'runId' | 'envelopeId' | 'path' | 'anchor'>

function idOf(asker: Asker, digest: Buffer): string {
  return deriveId(anchorOf(asker), 'call', asker.path, digest.toString('hex'))
}

function anchorOf({ anchor, runId, envelopeId }: Asker): string {
  return anchor ?? runId ?? envelopeId
}

/** The call as it would be opened now. `asked`: all of the request that its key is made of. */
function newCall(
  request: CallRequest,
  { asked, catalogVersion }: { readonly asked: string; readonly catalogVersion: number },
): NewCall {
  const { runId, envelopeId, apiKeyId, path, model, body } = request
  const digest = sha256(asked)
  const id = idOf(request, digest)
  const requestId = deriveId(anchorOf(request), 'request', id)
  return { id, runId, envelopeId, apiKeyId, path, digest, model, catalogVersion, requestId, request: body }
}

interface Beginning {
  readonly call: NewCall
  readonly newest: CatalogVersion
  readonly owner: string
  readonly isLarge: boolean
}

/**
 * Most calls are new and are answered by their first attempt: that is tried without a look at what is stored, and opens
 * the call with its hold. Whatever else there is to know, the ledger's verdict says that there is something.
 */
async function begin(engine: Engine, request: CallRequest, beginning: Beginning): Promise<CallResult> {
  const { call, newest, owner, isLarge } = beginning
  const model = modelOf(newest.catalog, request.model)
  if (model && !isLarge) {
    const choice = await routesFor(engine, request, { call, model })
    const execution: Execution = { engine, request, call, owner, choice, passedNumber: 0, closed: new Map() }
    const first = await attemptFirst(execution)
    if (first.kind === 'done') return first.result
    if (first.kind === 'look') return pursue(execution)
  }
  return resume(engine, request, beginning)
}

/** Goes on with a call that others have begun, or opens it without a hold because there is nothing to hold. */
async function resume(engine: Engine, request: CallRequest, { call, newest, owner }: Beginning): Promise<CallResult> {
  const story = await loadCall(engine.db, request.scope, call.id)
  if (story?.state === 'answered') return answered(call.id, story)
  const version = story?.catalogVersion ?? newest.version
  const model = modelOf(await engine.shelf.version(version), request.model)
  if (!model) return failed(call.id, 'unknown_model', `the catalog has no model ${request.model}`)
  if (!story) await openCall(engine.db, request.scope, call)
  const choice = await routesFor(engine, request, { call, model })
  const passedNumber = story?.steps.at(-1)?.number ?? 0
  return pursue({ engine, request, call, owner, choice, passedNumber, closed: new Map() })
}

async function routesFor(
  engine: Engine,
  request: CallRequest,
  { call, model }: { readonly call: NewCall; readonly model: CatalogModel },
): Promise<RouteChoice> {
  const { scope, envelopeId } = request
  return chooseRoutes(model, {
    callId: call.id,
    request,
    pockets: await engine.shelf.pockets(scope, envelopeId, (pockets) => payAll(pockets, model)),
    extrasOf: (provider) => engine.providers.get(provider)?.extras,
    priceOf: (route) => engine.shelf.price(scope, route),
    promptOf: promptBounds(engine.tokens, request.body),
  })
}

/**
 * Answers a call with a stored answer: of the run that its run was forked from, or the project's to the same request if its
 * owner and the other's chose that.
 */
async function reuse(engine: Engine, request: CallRequest, call: NewCall): Promise<CallResult | undefined> {
  if (!request.reuse && !request.fork) return undefined
  const { scope } = request
  const known: CallStory | undefined = await loadCall(engine.db, scope, call.id)
  if (known) return known.state === 'answered' ? answered(call.id, known) : undefined
  const answer = await storedAnswer(engine, request, call)
  if (!answer) return undefined
  const copyId = deriveId(anchorOf(request), 'copy', call.id)
  if (!(await openAnswered(engine.db, scope, { call, answer, copyId }))) {
    // Of the run that this one was forked from, it was to cost nothing; of any other it is as if there were none.
    return answer.isOfSource ? notStored(call.id) : undefined
  }
  const story = await loadCall(engine.db, scope, call.id)
  invariant(story, `call ${call.id} is gone`)
  return story.state === 'answered' ? answered(call.id, story) : undefined
}

async function storedAnswer(
  { db }: Engine,
  { scope, runId, fork, reuse: choice }: CallRequest,
  { path, digest }: NewCall,
): Promise<(ReusableAnswer & { readonly isOfSource: boolean }) | undefined> {
  if (fork && runId !== null) {
    const callId = deriveId(fork.sourceRunId, 'call', path, digest.toString('hex'))
    const answer = await forkedAnswer(db, scope, { runId, callId })
    if (answer) return { ...answer, isOfSource: true }
  }
  const reusable = choice && (await reusableAnswer(db, scope, { digest, maxAgeMs: choice.maxAgeMs }))
  return reusable && { ...reusable, isOfSource: false }
}

function modelOf(catalog: { readonly models: readonly CatalogModel[] }, name: string): CatalogModel | undefined {
  return catalog.models.find((model) => model.name === name)
}
