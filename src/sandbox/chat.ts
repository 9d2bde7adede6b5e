import type { IncomingMessage, ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { ChatRequest } from './chat-request.ts'
import type { SandboxModel } from './config.ts'
import type { Exchange } from './exchange.ts'
import type { FaultBook, Faults } from './faults.ts'
import type { HoldBook } from './holds.ts'
import type { RequestLog } from './log.ts'
import type { WireError } from './wire.ts'
import { sendAnswer } from './answer.ts'
import { charge, formatUsd } from './bill.ts'
import { parseChatRequest } from './chat-request.ts'
import { complete } from './completion.ts'
import { countedUsage, pause } from './exchange.ts'
import { refusalOf } from './faults.ts'
import { countPromptTokens, encodeText, toPieces } from './tokens.ts'
import {
  contextTooLong,
  headerOf,
  invalidRequest,
  readBody,
  refusals,
  sendError,
  unknownModel,
  wrongKey,
} from './wire.ts'

/** What the requests of one provider share. */
export interface ChatContext {
  readonly models: ReadonlyMap<string, SandboxModel>
  /** API keys by name. */
  readonly keys: ReadonlyMap<string, string>
  readonly log: RequestLog
  readonly faults: FaultBook
  readonly holds: HoldBook
}

interface Admitted {
  readonly request: ChatRequest
  readonly model: SandboxModel
  readonly faults: Faults
  readonly promptTokens: number
  readonly text: string
}

type Admission =
  | { readonly ok: true; readonly admitted: Admitted }
  | { readonly ok: false; readonly error: WireError; readonly model: string | null; readonly retryAfterMs?: number }

/** A client that never goes away does not keep a hanging request for ever. */
const LONGEST_HANG_MS = 600_000

/** Answers `POST /v1/chat/completions`: refuse, or begin, answer and bill. */
export async function answerChat(context: ChatContext, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { log } = context
  const seq = log.open(headerOf(req, 'x-client-request-id'))
  const { clientGone, cut } = watchClient(res, () => log.update(seq, { clientGoneAt: new Date().toISOString() }))
  const body = await readBody(req)
  const keyName = keyNameOf(context, req)
  log.update(seq, { keyName })
  const admission = keyName === null ? refused(wrongKey, null) : admit(context, body)
  if (!admission.ok) {
    log.update(seq, { status: admission.error.status, model: admission.model })
    sendError(res, admission.error, admission.retryAfterMs)
    return
  }
  const { admitted } = admission
  const settle = begin(context, seq, admitted)
  const hold = takeHold(context, { seq, admitted, clientGone })
  // A turn of the event loop between the two long computations keeps other requests moving.
  await nextTurn()
  const exchange: Exchange = { seq, ...admitted, ...generate(admitted), clientGone, hold, settle, cut }
  await beforeAnswer(exchange)
  if (clientGone.aborted || admitted.faults.hang === true) {
    settle({ completionTokens: 0, isFinished: false })
    if (!clientGone.aborted) cut()
    return
  }
  log.update(seq, { status: 200 })
  await sendAnswer(exchange, res)
}

function admit(context: ChatContext, body: string | null): Admission {
  if (body === null) return refused({ ...invalidRequest('The request body is too large.', null), status: 413 }, null)
  const parsed = parseChatRequest(body)
  if (!parsed.ok) return refused(invalidRequest(parsed.problem.message, parsed.problem.param), parsed.model)
  const { request } = parsed
  const model = context.models.get(request.model)
  if (model === undefined) return refused(unknownModel(request.model), request.model)

  const text = request.messages.map((message) => message.text).join('\n')
  const faults = context.faults.take(model.name, text)
  const refusal = refusalOf(faults)
  if (refusal !== null) return refused(refusals[refusal], model.name, faults.retryAfterMs)
  const promptTokens = countPromptTokens(request.messages)
  const asked = promptTokens + (request.maxTokens ?? 0)
  if (asked > model.contextTokens) return refused(contextTooLong({ allowed: model.contextTokens, asked }), model.name)
  return { ok: true, admitted: { request, model, faults, promptTokens, text } }
}

function refused(error: WireError, model: string | null, retryAfterMs?: number): Admission {
  return { ok: false, error, model, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
}

/** From here on the request costs money; the function returned books how much. */
function begin({ log }: ChatContext, seq: number, { model, faults, promptTokens }: Admitted): Exchange['settle'] {
  log.update(seq, { begun: true, model: model.name })
  const isBilled = faults.bills ?? faults.garbage === undefined
  return ({ completionTokens, isFinished }) => {
    const counted = countedUsage({ promptTokens, faults }, completionTokens)
    const usage = isBilled ? counted : { promptTokens: 0, completionTokens: 0 }
    log.update(seq, { usage, billed: formatUsd(charge(usage, model.prices)), finished: isFinished })
  }
}

function takeHold(
  { log, holds }: ChatContext,
  {
    seq,
    admitted,
    clientGone,
  }: { readonly seq: number; readonly admitted: Admitted; readonly clientGone: AbortSignal },
): Exchange['hold'] {
  const { callKey = null, attempt = null } = log.get(seq) ?? {}
  const taken = holds.take({ callKey, attempt, model: admitted.model.name }, admitted.text)
  return taken === null ? null : { at: taken.at, wait: () => holds.wait(taken.id, clientGone) }
}

function generate({ request, model, faults }: Admitted): Pick<Exchange, 'pieces' | 'finishReason'> {
  const maxTokens = Math.min(request.maxTokens ?? model.maxOutputTokens, model.maxOutputTokens)
  const tokens = encodeText(complete({ messages: request.messages, format: request.format, maxTokens }))
  const pieces = toPieces(tokens.slice(0, maxTokens))
  if (faults.contentFilter === true) return { pieces: pieces.slice(0, 1), finishReason: 'content_filter' }
  return { pieces, finishReason: tokens.length > maxTokens ? 'length' : 'stop' }
}

async function beforeAnswer({ faults, hold, clientGone, request }: Exchange): Promise<void> {
  await pause(faults.delayFirstByteMs ?? 0, clientGone)
  // An answer in one body has no middle: it is held before its only byte.
  if (hold !== null && (hold.at === 'before-answer' || !request.isStream)) await hold.wait()
  if (faults.hang === true) await pause(LONGEST_HANG_MS, clientGone)
}

/** `clientGone` aborts when the connection closes before the answer was handed over, unless the provider cut it itself. */
function watchClient(
  res: ServerResponse,
  onGone: () => void,
): { readonly clientGone: AbortSignal; readonly cut: () => void } {
  const gone = new AbortController()
  let isCut = false
  res.once('close', () => {
    if (res.writableFinished || isCut) return
    onGone()
    gone.abort()
  })
  const cut = (): void => {
    isCut = true
    // Node gathers the writes of one turn: those made just before must leave first.
    setImmediate(() => (res.socket === null ? res.destroy() : res.socket.destroySoon()))
  }
  return { clientGone: gone.signal, cut }
}

function keyNameOf(context: ChatContext, req: IncomingMessage): string | null {
  const key = /^Bearer\s+(\S+)$/u.exec(headerOf(req, 'authorization') ?? '')?.[1]
  return [...context.keys].find(([, value]) => value === key)?.[0] ?? null
}
