import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { AnswerWriter, Dialect } from './dialect.ts'
import { refusals } from './errors.ts'
import { type Exchange, type Generated, NOTHING_GENERATED, hang, pause, reportedUsage } from './exchange.ts'
import { sendJson } from './http.ts'
import type { OutputPiece } from './output.ts'

/** A request held in mid-stream has sent half of its answer, but no more pieces than this. */
const MOST_PIECES_BEFORE_HOLD = 8
/** Between so many pieces other requests get their turn. */
const PIECES_PER_TURN = 32

const EVENT_STREAM = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' }
const GARBAGE_TEXT = '<html><body>upstream connect error</body></html>'

/** How an answer came to its end: whole, or before that by itself, by a fault, or because nobody listens. */
interface AnswerEnd extends Generated {
  readonly how: 'whole' | 'gone' | 'cut' | 'quiet' | 'error'
}

/** Sends the answer as the request asks and its faults allow, and settles each way it can end. */
export async function sendAnswer(exchange: Exchange, dialect: Dialect, res: ServerResponse): Promise<void> {
  const { request, faults } = exchange
  if (faults.garbage !== undefined) return sendGarbage(exchange, res)
  if (faults.hangAfterHeaders === true) return sendHeadersOnly(exchange, res)
  const writer = dialect.openAnswer(exchange)
  if (request.isStream) return sendStream(exchange, writer, res)
  return sendBody(exchange, dialect, { writer, res })
}

async function sendBody(
  exchange: Exchange,
  dialect: Dialect,
  { writer, res }: { readonly writer: AnswerWriter; readonly res: ServerResponse },
): Promise<void> {
  const { how, ...generated } = await generate(exchange, () => {})
  if (how === 'gone' || how === 'cut') return breakOff(exchange, generated)
  const isError = how === 'error'
  exchange.settle({ ...generated, isFinished: !isError })
  if (!isError) return sendJson(res, 200, writer.body(reportedUsage(exchange, generated)))
  const error = dialect.adaptError(refusals.serverError)
  sendJson(res, error.status, dialect.writeError(error, exchange.id))
}

async function sendStream(exchange: Exchange, writer: AnswerWriter, res: ServerResponse): Promise<void> {
  const { clientGone } = exchange
  let pending = writer.start(reportedUsage(exchange, NOTHING_GENERATED))
  const write = async (): Promise<void> => {
    const text = pending
    pending = ''
    if (text !== '' && !res.write(text)) await drained(res, clientGone)
  }
  res.writeHead(200, EVENT_STREAM)
  const isPaced = isInterrupted(exchange)
  if (isPaced) await write()
  // Each write of its own costs as much as the rest of a short answer: what comes at once goes at once.
  const { how, ...generated } = await generate(exchange, async (piece, sent) => {
    pending += writer.piece(piece)
    if (isPaced || sent % PIECES_PER_TURN === 0) await write()
  })
  if (how === 'gone' || how === 'cut') {
    await write()
    return breakOff(exchange, generated)
  }
  exchange.settle({ ...generated, isFinished: how === 'whole' })
  if (how === 'whole') res.end(pending + writer.end(reportedUsage(exchange, generated)))
  else res.end(pending + (how === 'error' ? writer.error(refusals.siteOverloaded) : ''))
}

/** Whether time passes between the pieces of the answer. */
function isInterrupted({ settings, faults, hold }: Exchange): boolean {
  const isSlow = settings.tokensPerSecond > 0 || faults.delayPerChunkMs !== undefined
  return isSlow || faults.hangAfterChunks !== undefined || hold !== null
}

/** Produces the answer piece by piece, at the pace that the model and its faults have. */
async function generate(
  { output, faults, settings, hold, clientGone, request }: Exchange,
  emit: (piece: OutputPiece, sent: number) => unknown,
): Promise<AnswerEnd> {
  const { pieces } = output
  const holdAfter = hold?.at === 'mid-stream' && request.isStream ? middleOf(pieces.length) : null
  const stop = stopOf({ faults, request, output })
  const beganAtMs = performance.now()
  let generated = NOTHING_GENERATED
  let sent = 0
  for (const piece of pieces) {
    if (sent === stop.after) break
    const paceMs =
      settings.tokensPerSecond > 0 ? (1000 * (generated.completionTokens + piece.tokens)) / settings.tokensPerSecond : 0
    if (paceMs > 0) await pause(beganAtMs + paceMs - performance.now(), clientGone)
    if (faults.delayPerChunkMs !== undefined) await pause(faults.delayPerChunkMs, clientGone)
    if (clientGone.aborted) break
    generated = addPiece(generated, piece)
    sent += 1
    await emit(piece, sent)
    if (sent === holdAfter) await hold?.wait()
    if (sent % PIECES_PER_TURN === 0) await nextTurn()
  }
  if (stop.how === 'hang' && !clientGone.aborted) await hang(clientGone)
  const how = clientGone.aborted ? 'gone' : stop.how === 'hang' ? 'cut' : stop.how
  return { how, ...generated }
}

function addPiece({ completionTokens, reasoningTokens }: Generated, { kind, tokens }: OutputPiece): Generated {
  const isReasoning = kind === 'hidden' || kind === 'reasoning'
  return {
    completionTokens: completionTokens + tokens,
    reasoningTokens: reasoningTokens + (isReasoning ? tokens : 0),
  }
}

/** After how many pieces a fault ends the answer, and how. */
function stopOf({ faults, request, output }: Pick<Exchange, 'faults' | 'request' | 'output'>): {
  readonly after: number
  readonly how: 'whole' | 'cut' | 'hang' | 'error' | 'quiet'
} {
  const { cutStreamAfterChunks, hangAfterChunks, errorAfterChunks, endStreamAfterChunks } = faults
  if (cutStreamAfterChunks !== undefined) return { after: cutStreamAfterChunks, how: 'cut' }
  if (hangAfterChunks !== undefined) return { after: hangAfterChunks, how: 'hang' }
  if (errorAfterChunks !== undefined) return { after: errorAfterChunks, how: 'error' }
  // Half a body would be garbage, which has a fault of its own.
  if (endStreamAfterChunks !== undefined && request.isStream) return { after: endStreamAfterChunks, how: 'quiet' }
  return { after: output.pieces.length, how: 'whole' }
}

/** Settles an answer that did not come to its end, and breaks the connection off. */
function breakOff({ settle, clientGone, cut }: Exchange, generated: Generated): void {
  settle({ ...generated, isFinished: false })
  if (!clientGone.aborted) cut()
}

async function sendHeadersOnly(exchange: Exchange, res: ServerResponse): Promise<void> {
  res.writeHead(200, exchange.request.isStream ? EVENT_STREAM : { 'content-type': 'application/json' })
  res.flushHeaders()
  await hang(exchange.clientGone)
  breakOff(exchange, NOTHING_GENERATED)
}

function sendGarbage(exchange: Exchange, res: ServerResponse): void {
  const generated = exchange.output.pieces.reduce(addPiece, NOTHING_GENERATED)
  exchange.settle({ ...generated, isFinished: true })
  if (exchange.faults.garbage === 'invalid-sse') {
    res.writeHead(200, EVENT_STREAM).end('data: {"id":"chatcmpl-\n\ndata: [DONE]\n\n')
    return
  }
  if (exchange.faults.garbage === 'not-json') {
    res.writeHead(200, { 'content-type': 'application/json' }).end(GARBAGE_TEXT)
    return
  }
  sendJson(res, 200, { object: 'list', data: [] })
}

function middleOf(pieces: number): number {
  return Math.max(1, Math.min(Math.ceil(pieces / 2), MOST_PIECES_BEFORE_HOLD))
}

async function drained(res: ServerResponse, clientGone: AbortSignal): Promise<void> {
  try {
    await once(res, 'drain', { signal: clientGone })
  } catch (error) {
    if (!clientGone.aborted) throw error
  }
}
