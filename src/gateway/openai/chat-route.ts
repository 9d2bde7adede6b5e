import { openAiChatRequestSchema } from '#contracts/openai-chat.ts'
import type { FastifyInstance } from 'fastify'
import { streamAnswer } from '../answer-stream.ts'
import { ask } from '../ask.ts'
import { askingOf } from '../asking.ts'
import { abortWithClient, tellPaid } from '../exchange.ts'
import type { GatewayDeps } from '../gateway-deps.ts'
import { parseBody } from '../parse-body.ts'
import { ChunkWriter, toCompletion } from './chat-answer.ts'
import { toChatBody } from './chat-request.ts'
import { toOpenAiError } from './errors.ts'

/** `POST /v1/chat/completions`. */
export function chatRoute(app: FastifyInstance, deps: GatewayDeps): void {
  const { engine } = deps
  app.post('/chat/completions', async (request, reply) => {
    const asked = parseBody(openAiChatRequestSchema, request.body)
    const { model } = asked
    const asking = await askingOf(deps, request, { model, body: toChatBody(asked), kind: 'openai.chat' })
    const controller = abortWithClient(reply)
    if (!asked.stream) {
      const given = await ask(engine, { ...asking.question, signal: controller.signal })
      tellPaid(reply, given)
      return reply.send(toCompletion(model, given, engine.nowMs()))
    }
    return streamAnswer(engine, reply, {
      ...asking,
      controller,
      writerOn: (stream, { callId }) => new ChunkWriter(stream, { model, callId, createdMs: engine.nowMs() }),
      refuse: (stream, refusal) => stream.send(toOpenAiError(refusal)),
    })
  })
}
