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
  /** Writes the event that ends a stream in place of its answer's end. */
  readonly refuse: (stream: EventStream, refusal: Refusal) => void
}

/**
 * Asks, and writes the answer as it comes. Until the first piece of it nothing is written, so that a refusal has its own
 * status.
 *
 * @throws Refusal when nothing was written
 */
export async function streamAnswer(
  engine: Engine,
  reply: FastifyReply,
  { question, isStreamed, controller, writerOn, refuse }: Streaming,
): Promise<FastifyReply> {
  const stream = new EventStream(reply, () => controller.abort(new Error('the client reads too slowly')))
  let writer: AnswerWriter | undefined
  try {
    const given = await ask(engine, {
      ...question,
      signal: controller.signal,
      onHeld(held) {
        tellHeld(reply, held)
        writer = writerOn(stream, held)
      },
      ...(isStreamed && { onDelta: (delta: AnswerDelta) => writer?.piece(delta) }),
    })
    if (!stream.hasBegun) {
      tellPaid(reply, given)
      writer = writerOn(stream, { callId: given.callId, inputTokens: undefined })
      for (const piece of piecesOf(given.answer)) writer.piece(piece)
    }
    writer?.end(given)
    stream.end()
  } catch (error) {
    if (!stream.hasBegun) throw error
    refuse(stream, error instanceof Refusal ? error : new Refusal('internal', 'Something is wrong on our side.'))
    stream.end()
    if (!(error instanceof Refusal)) throw error
  }
  return reply
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
