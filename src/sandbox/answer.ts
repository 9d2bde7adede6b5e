import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Exchange } from './exchange.ts'
import type { CompletionHead, FinishReason } from './wire.ts'
import { pause, reportedUsage } from './exchange.ts'
import { sendJson, toCompletion, toEvent } from './wire.ts'

/** A request held in mid-stream has sent half of its answer, but no more pieces than this. */
const MOST_PIECES_BEFORE_HOLD = 8
/** Between so many pieces other requests get their turn. */
const PIECES_PER_TURN = 32

const EVENT_STREAM = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' }
const GARBAGE_TEXT = '<html><body>upstream connect error</body></html>'

/** Sends the answer as the request asks and its faults allow, and settles each way it can end. */
export async function sendAnswer(exchange: Exchange, res: ServerResponse): Promise<void> {
  const { request, faults } = exchange
  const head = { id: `chatcmpl-${exchange.seq}`, created: Math.floor(Date.now() / 1000), model: request.model }
  if (faults.garbage !== undefined) return sendGarbage(exchange, res)
  if (request.isStream) return sendStream(exchange, res, head)
  return sendBody(exchange, res, head)
}

async function sendBody(exchange: Exchange, res: ServerResponse, head: CompletionHead): Promise<void> {
  let text = ''
  const end = await generate(exchange, (piece) => {
    text += piece
    return true
  })
  if (!end.isComplete) return
  exchange.settle({ completionTokens: end.completionTokens, isFinished: true })
  const choices = exchange.faults.emptyChoices === true ? [] : [{ text, finishReason: exchange.finishReason }]
  sendJson(res, 200, toCompletion(head, choices, reportedUsage(exchange, end.completionTokens)))
}

async function sendStream(exchange: Exchange, res: ServerResponse, head: CompletionHead): Promise<void> {
  const { request, faults, clientGone } = exchange
  // With `include_usage` every chunk has the field, null but in the last one (OpenAI's API reference).
  const noUsage = request.includesUsage && faults.usageMissing !== true ? null : undefined
  const write = (delta: { role?: 'assistant'; content?: string }, finishReason: FinishReason | null): boolean =>
    res.write(toEvent(head, faults.emptyChoices === true ? null : { delta, finishReason }, noUsage))

  res.writeHead(200, EVENT_STREAM)
  write({ role: 'assistant', content: '' }, null)
  const end = await generate(exchange, async (piece) => {
    if (!write({ content: piece }, null)) await drained(res, clientGone)
  })
  if (!end.isComplete) return
  write({}, exchange.finishReason)
  const usage = reportedUsage(exchange, end.completionTokens)
  if (request.includesUsage && usage !== null) res.write(toEvent(head, null, usage))
  exchange.settle({ completionTokens: end.completionTokens, isFinished: true })
  res.end('data: [DONE]\n\n')
}

/** Produces the answer piece by piece; when it ends early, what was produced is settled already. */
async function generate(
  exchange: Exchange,
  emit: (text: string) => unknown,
): Promise<{ readonly isComplete: boolean; readonly completionTokens: number }> {
  const { pieces, faults, hold, clientGone, request } = exchange
  const holdAfter = hold?.at === 'mid-stream' && request.isStream ? middleOf(pieces.length) : null
  const cutAfter = faults.cutStreamAfterChunks ?? Number.POSITIVE_INFINITY
  let completionTokens = 0
  let sent = 0
  for (const piece of pieces) {
    if (sent >= cutAfter) break
    await pause(faults.delayPerChunkMs ?? 0, clientGone)
    if (clientGone.aborted) break
    completionTokens += piece.tokens
    sent += 1
    await emit(piece.text)
    if (sent === holdAfter) await hold?.wait()
    if (sent % PIECES_PER_TURN === 0) await nextTurn()
  }
  const isCut = faults.cutStreamAfterChunks !== undefined
  if (!isCut && !clientGone.aborted) return { isComplete: true, completionTokens }
  exchange.settle({ completionTokens, isFinished: false })
  if (!clientGone.aborted) exchange.cut()
  return { isComplete: false, completionTokens }
}

function sendGarbage(exchange: Exchange, res: ServerResponse): void {
  const completionTokens = exchange.pieces.reduce((sum, piece) => sum + piece.tokens, 0)
  exchange.settle({ completionTokens, isFinished: true })
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
