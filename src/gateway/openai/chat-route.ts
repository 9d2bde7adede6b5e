import type { AnswerDelta } from '#calls/call.ts'
import { openAiChatRequestSchema, type OpenAiChatRequest } from '#contracts/openai-chat.ts'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { callerOfRequest } from '../access.ts'
import { ask, type Question, type Reply } from '../ask.ts'
import { abortWithClient, idempotencyKeyOf, paidInWords, tellHeld, tellPaid } from '../exchange.ts'
import { payerFor, type GatewayDeps } from '../gateway-deps.ts'
import { FITTED, UNBOUNDED_TOKENS } from '../output-bound.ts'
import { parseBody } from '../parse-body.ts'
import { Refusal } from '../refusal.ts'
import { EventStream } from '../sse.ts'
import { ChunkWriter, toCompletion } from './chat-answer.ts'
import { toChatBody } from './chat-request.ts'
import { toOpenAiError } from './errors.ts'

/** `POST /v1/chat/completions`. */
export function chatRoute(app: FastifyInstance, deps: GatewayDeps): void {
  app.post('/chat/completions', async (request, reply) => {
    const asked = parseBody(openAiChatRequestSchema, request.body)
    const asking = await askingOf(deps, request, asked)
    const controller = abortWithClient(reply)
    if (asked.stream) return streamAnswer(deps, reply, { ...asking, asked, controller })
    const given = await ask(deps.engine, { ...asking.question, signal: controller.signal })
    tellPaid(reply, given)
    return reply.send(toCompletion(asked.model, given, deps.engine.nowMs()))
  })
}

interface Asking {
  readonly question: Omit<Question, 'signal' | 'onHeld' | 'onDelta'>
  /** Whether any route gives its answer piece by piece: of the others it comes in one. */
  readonly isStreamed: boolean
}

async function askingOf(deps: GatewayDeps, request: FastifyRequest, asked: OpenAiChatRequest): Promise<Asking> {
  const { model: name } = asked
  const body = toChatBody(asked)
  const { payer, model } = await payerFor(deps, callerOfRequest(request), name)
  const tight = body.maxTokens === UNBOUNDED_TOKENS ? (payer.tight ?? FITTED) : payer.tight
  const idempotencyKey = idempotencyKeyOf(request)
  return {
    question: { payer: { ...payer, tight }, model: name, body, kind: 'openai.chat', idempotencyKey },
    isStreamed: model.routes.some(({ capabilities }) => capabilities.streaming),
  }
}

interface Streaming extends Asking {
  readonly asked: OpenAiChatRequest
  readonly controller: AbortController
}

async function streamAnswer(
  { engine }: GatewayDeps,
  reply: FastifyReply,
  { asked, question, isStreamed, controller }: Streaming,
): Promise<FastifyReply> {
  const stream = new EventStream(reply, () => controller.abort(new Error('the client reads too slowly')))
  const begin = (callId: string) => new ChunkWriter(asked.model, callId, engine.nowMs())
  let writer: ChunkWriter | undefined
  try {
    const given = await ask(engine, {
      ...question,
      signal: controller.signal,
      onHeld(held) {
        tellHeld(reply, held)
        writer = begin(held.callId)
      },
      ...(isStreamed && { onDelta: (delta: AnswerDelta) => writer && stream.send(writer.piece(delta)) }),
    })
    finish(stream, reply, { writer: writer ?? begin(given.callId), given })
  } catch (error) {
    if (!stream.hasBegun) throw error
    const refusal = error instanceof Refusal ? error : new Refusal('internal', 'Something is wrong on our side.')
    stream.send(toOpenAiError(refusal))
    stream.end()
    if (!(error instanceof Refusal)) throw error
  }
  return reply
}

/** An answer of which nothing was told yet, because it was there already or came in one piece, is told in one. */
function finish(
  stream: EventStream,
  reply: FastifyReply,
  { writer, given }: { readonly writer: ChunkWriter; readonly given: Reply },
): void {
  if (!stream.hasBegun) {
    tellPaid(reply, given)
    for (const piece of writer.whole(given.answer)) stream.send(piece)
  }
  for (const end of writer.ends(given.answer)) stream.send(end)
  stream.send(writer.usage(given.receipt, paidInWords(given)))
  stream.write('data: [DONE]\n\n')
  stream.end()
}
