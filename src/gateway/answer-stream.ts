import type { AnswerChoice, AnswerDelta, CallAnswer } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import type { FastifyReply } from 'fastify'
import { ask, type Reply } from './ask.ts'
import type { Asking } from './asking.ts'
import { tellHeld, tellPaid } from './exchange.ts'
import { Refusal } from './refusal.ts'
import { EventStream } from './sse.ts'

/** Writes one answer as the events of a client's own API. */
export interface AnswerWriter {
  piece(delta: AnswerDelta): void
  /** After the last piece. */
  end(given: Reply): void
}

/** What is known of a call before its answer. */
interface KnownCall {
  readonly callId: string
  /** Of the prompt, where it was counted. */
  readonly inputTokens: number | undefined
}

interface Streaming extends Asking {
  /** Aborts when the client is gone. */
  readonly controller: AbortController
  readonly writerOn: (stream: EventStream, known: KnownCall) => AnswerWriter
  /** What a silent stream says in this dialect; left out: a comment. */
  readonly aliveEvent?: string
  /** Writes the event that ends a stream in place of its answer's end. */
  readonly refuse: (stream: EventStream, refusal: Refusal) => void
}

/**
 * Asks, and writes the answer as it comes. Until the first piece of it nothing is written, so that a refusal has its own
 * status; once the answer is long in coming, signs that somebody is there are.
 *
 * @throws Refusal when nothing was written
 */
export async function streamAnswer(engine: Engine, reply: FastifyReply, streaming: Streaming): Promise<FastifyReply> {
  const { question, isStreamed, controller, writerOn, keepAliveMs, aliveEvent } = streaming
  const stream = new EventStream(reply, () => controller.abort(new Error('the client reads too slowly')))
  let writer: AnswerWriter | undefined
  let hasPieces = false
  let stayAlive: (() => void) | undefined
  try {
    const given = await ask(engine, {
      ...question,
      signal: controller.signal,
      onHeld(held) {
        if (!stream.hasBegun) tellHeld(reply, held)
        writer = writerOn(stream, held)
        stayAlive ??= stream.keepAlive(keepAliveMs, aliveEvent)
      },
      ...(isStreamed && {
        onDelta(delta: AnswerDelta) {
          hasPieces = true
          writer?.piece(delta)
        },
      }),
    })
    if (!hasPieces) writer = writeWhole(stream, reply, { given, writerOn })
    writer?.end(given)
    stream.end()
  } catch (error) {
    if (!stream.hasBegun) throw error
    streaming.refuse(
      stream,
      error instanceof Refusal ? error : new Refusal('internal', 'Something is wrong on our side.'),
    )
    stream.end()
    if (!(error instanceof Refusal)) throw error
  } finally {
    stayAlive?.()
  }
  return reply
}

/** An answer of which nothing was written yet but signs of life. */
function writeWhole(
  stream: EventStream,
  reply: FastifyReply,
  of: Pick<Streaming, 'writerOn'> & { readonly given: Reply },
): AnswerWriter {
  const { given, writerOn } = of
  if (!stream.hasBegun) tellPaid(reply, given)
  const writer = writerOn(stream, { callId: given.callId, inputTokens: undefined })
  for (const piece of piecesOf(given.answer)) writer.piece(piece)
  return writer
}

/** An answer that was there already, or came whole, is told in one piece, and one for each call of a tool. */
export function piecesOf(answer: CallAnswer): readonly AnswerDelta[] {
  return choicesOf(answer).flatMap(({ text, toolCalls = [] }, choice): readonly AnswerDelta[] => [
    ...(text === '' ? [] : [{ kind: 'text' as const, choice, text }]),
    ...toolCalls.map((call, index) => ({ kind: 'tool_call' as const, choice, index, ...call })),
  ])
}

/** All answers to a prompt. */
export function choicesOf(answer: CallAnswer): readonly AnswerChoice[] {
  return [answer, ...(answer.others ?? [])]
}
