import type { IncomingMessage, ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Admitted, admit } from './admission.ts'
import { sendAnswer } from './answer.ts'
import { NO_USAGE, charge, formatAmount } from './bill.ts'
import type { SandboxContext } from './context.ts'
import type { Dialect } from './dialect.ts'
import type { WireError } from './errors.ts'
import { type Exchange, NOTHING_GENERATED, countedUsage, hang, pause } from './exchange.ts'
import type { Faults } from './faults.ts'
import { headerOf, readBody, sendJson, setRetryAfter } from './http.ts'
import type { LoggedRequest } from './log.ts'
import { generateOutput } from './output.ts'

/** Counting and answering more characters than this takes about a millisecond each. */
const LONG_TEXT = 4000

interface Visit {
  readonly context: SandboxContext
  readonly dialect: Dialect
  readonly res: ServerResponse
  readonly logged: LoggedRequest
}

/** Answers a request to a model: refuse, or begin, answer and bill. */
export async function serveModel(
  context: SandboxContext,
  dialect: Dialect,
  { req, res }: { readonly req: IncomingMessage; readonly res: ServerResponse },
): Promise<void> {
  const { log } = context
  const logged = log.open(headerOf(req, 'x-client-request-id'))
  const visit: Visit = { context, dialect, res, logged }
  const { clientGone, cut } = watchClient(res, () => log.update(logged.seq, { clientGoneAt: new Date().toISOString() }))
  res.setHeader(dialect.idHeader, dialect.idPrefix + logged.id)
  const body = await readBody(req)
  const keyName = keyNameOf(context, req)
  log.update(logged.seq, { keyName })
  const admission = admit(context, { dialect, body, keyName, script: headerOf(req, 'x-sandbox-faults') })
  if (!admission.ok) return refuse(visit, admission)

  const { admitted } = admission
  const settle = begin(visit, admitted)
  const hold = takeHold(visit, admitted, clientGone)
  // A turn of the event loop between two long computations keeps other requests moving.
  if (admitted.text.length > LONG_TEXT) await nextTurn()
  const exchange: Exchange = {
    ...admitted,
    id: logged.id,
    output: generateOutput(admitted),
    clientGone,
    hold,
    settle,
    cut,
  }
  if (await isLost(exchange)) {
    settle({ ...NOTHING_GENERATED, isFinished: false })
    if (!clientGone.aborted) cut()
    return
  }
  log.update(logged.seq, { status: 200, finishReason: exchange.output.finishReason })
  await sendAnswer(exchange, dialect, res)
}

/** Answers an error in the words of the dialect. */
export function sendError(res: ServerResponse, dialect: Dialect, error: WireError, faults: Faults = {}): number {
  const said = dialect.adaptError(error)
  setRetryAfter(res, faults)
  sendJson(res, said.status, dialect.writeError(said, String(res.getHeader(dialect.idHeader) ?? '')))
  return said.status
}

function refuse(
  { context, dialect, res, logged }: Visit,
  { error, model, faults }: { readonly error: WireError; readonly model: string | null; readonly faults: Faults },
): void {
  const { status } = dialect.adaptError(error)
  context.log.update(logged.seq, { status, model, endedAt: new Date().toISOString() })
  context.log.flush()
  sendError(res, dialect, error, faults)
}

/** From here on the request costs money; the function returned books how much. */
function begin({ context: { log }, logged: { seq } }: Visit, admitted: Admitted): Exchange['settle'] {
  const { request, model, faults } = admitted
  log.update(seq, { begun: true, model: request.model, streamed: request.isStream })
  const isBilled = faults.bills ?? faults.garbage === undefined
  return ({ isFinished, ...generated }) => {
    const usage = isBilled ? countedUsage(admitted, generated) : NO_USAGE
    const billed = formatAmount(isBilled ? charge(usage, model.prices) : 0n)
    log.update(seq, { usage, billed, finished: isFinished, endedAt: new Date().toISOString() })
    log.flush()
  }
}

function takeHold({ context, logged }: Visit, { request, text }: Admitted, clientGone: AbortSignal): Exchange['hold'] {
  const { callKey, attempt } = logged
  const taken = context.holds.take({ callKey, attempt, model: request.model }, text)
  return taken === null ? null : { at: taken.at, wait: () => context.holds.wait(taken.id, clientGone) }
}

/** Waits until the answer is due; true when there will be none. */
async function isLost({ faults, settings, hold, clientGone, request }: Exchange): Promise<boolean> {
  await pause(settings.delayFirstByteMs + (faults.delayFirstByteMs ?? 0), clientGone)
  // An answer in one body has no middle: it is held before its only byte.
  if (hold !== null && (hold.at === 'before-answer' || !request.isStream)) await hold.wait()
  if (faults.hang === true) await hang(clientGone)
  return clientGone.aborted || faults.hang === true || faults.cutBeforeHeaders === true
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

/** OpenAI's header or Anthropic's. */
export function keyNameOf({ keys }: SandboxContext, req: IncomingMessage): string | null {
  const key = headerOf(req, 'x-api-key') ?? /^Bearer\s+(\S+)$/u.exec(headerOf(req, 'authorization') ?? '')?.[1]
  for (const [name, value] of keys) if (value === key) return name
  return null
}
