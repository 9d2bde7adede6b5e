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
    const question = await questionOf(deps, request, asked)
    const controller = abortWithClient(reply)
    if (asked.stream) return streamAnswer(deps, reply, { asked, question, controller })
    const given = await ask(deps.engine, { ...question, signal: controller.signal })
    tellPaid(reply, given)
    return reply.send(toCompletion(asked.model, given, deps.engine.nowMs()))
  })
}

type Asking = Omit<Question, 'signal' | 'onHeld' | 'onDelta'>

async function questionOf(deps: GatewayDeps, request: FastifyRequest, asked: OpenAiChatRequest): Promise<Asking> {
  const { model } = asked
  const body = toChatBody(asked)
  const { payer } = await payerFor(deps, callerOfRequest(request), model)
  const isBounded = body.maxTokens !== UNBOUNDED_TOKENS
  return {
    payer: isBounded ? payer : { ...payer, tight: payer.tight ?? FITTED },
    model,
    body,
    kind: 'openai.chat',
    idempotencyKey: idempotencyKeyOf(request),
  }
}

interface Streaming {
  readonly asked: OpenAiChatRequest
  readonly question: Asking
  readonly controller: AbortController
}

async function streamAnswer(
  { engine }: GatewayDeps,
  reply: FastifyReply,
  { asked, question, controller }: Streaming,
): Promise<FastifyReply> {
  const stream = new EventStream(reply, () => controller.abort(new Error('the client reads too slowly')))
  let writer: ChunkWriter | undefined
  try {
    const given = await ask(engine, {
      ...question,
      signal: controller.signal,
      onHeld(held) {
        tellHeld(reply, held)
        writer = new ChunkWriter(asked.model, held.callId, engine.nowMs())
      },
      onDelta: (delta) => writer && stream.send(writer.piece(delta)),
    })
    finish(stream, writer ?? replayed(stream, reply, { asked, given, nowMs: engine.nowMs() }), given)
  } catch (error) {
    if (!stream.hasBegun) throw error
    const refusal = error instanceof Refusal ? error : new Refusal('internal', 'Something is wrong on our side.')
    stream.send(toOpenAiError(refusal))
    stream.end()
    if (!(error instanceof Refusal)) throw error
  }
  return reply
}

/** An answer that was there already comes in one piece. */
function replayed(
  stream: EventStream,
  reply: FastifyReply,
  { asked, given, nowMs }: { readonly asked: OpenAiChatRequest; readonly given: Reply; readonly nowMs: number },
): ChunkWriter {
  tellPaid(reply, given)
  const writer = new ChunkWriter(asked.model, given.callId, nowMs)
  for (const piece of writer.whole(given.answer)) stream.send(piece)
  return writer
}

function finish(stream: EventStream, writer: ChunkWriter, given: Reply): void {
  for (const end of writer.ends(given.answer)) stream.send(end)
  stream.send(writer.usage(given.receipt, paidInWords(given)))
  stream.write('data: [DONE]\n\n')
  stream.end()
}
