import { eventsOf } from '#contracts/documented.ts'
import { openAiChunkSchema, openAiCompletionSchema } from '#contracts/openai-answers.ts'
import { openAiChatRequestSchema } from '#contracts/openai-chat.ts'
import type { RouteHandlerMethod } from 'fastify'
import { streamAnswer } from '../answer-stream.ts'
import { ask } from '../ask.ts'
import { askingOf } from '../asking.ts'
import { documentedAs, REFUSED } from '../documented.ts'
import { abortWithClient, tellPaid } from '../exchange.ts'
import type { GatewayDeps } from '../gateway-deps.ts'
import type { GatewayRoute } from '../gateway-route.ts'
import { parseBody } from '../parse-body.ts'
import { ChunkWriter, toCompletion } from './chat-answer.ts'
import { toChatBody } from './chat-request.ts'
import { toOpenAiError } from './errors.ts'

export const chatRoute: GatewayRoute = {
  method: 'POST',
  url: '/chat/completions',
  documented: documentedAs({
    surface: 'openai',
    summary: 'Answer a chat',
    description: 'Members that are not listed go to routes that take them; what has no price is refused.',
    body: openAiChatRequestSchema,
    answer: openAiCompletionSchema,
    event: eventsOf(openAiChunkSchema, '[DONE]'),
    refused: REFUSED.call,
    isCall: true,
  }),
  handlerOf: answerChat,
}

function answerChat(deps: GatewayDeps): RouteHandlerMethod {
  const { engine } = deps
  return async (request, reply) => {
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
  }
}
