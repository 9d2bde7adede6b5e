import { promptBounds } from '#calls/prompt-size.ts'
import { anthropicCountSchema, anthropicEventSchema, anthropicMessageSchema } from '#contracts/anthropic-answers.ts'
import { anthropicCountRequestSchema, anthropicMessageRequestSchema } from '#contracts/anthropic-messages.ts'
import { eventsOf } from '#contracts/documented.ts'
import type { RouteHandlerMethod } from 'fastify'
import { callerOfRequest } from '../access.ts'
import { streamAnswer } from '../answer-stream.ts'
import { ask } from '../ask.ts'
import { askingOf } from '../asking.ts'
import { documentedAs, REFUSED } from '../documented.ts'
import { abortWithClient, tellPaid } from '../exchange.ts'
import { modelFor, type GatewayDeps } from '../gateway-deps.ts'
import type { GatewayRoute } from '../gateway-route.ts'
import { parseBody } from '../parse-body.ts'
import { requestIdOf } from '../surface.ts'
import { toAnthropicError } from './errors.ts'
import { MessageWriter, toMessage } from './message-answer.ts'
import { toMessageBody, toPromptBody } from './message-request.ts'

/** As Anthropic's own streams say that they are there. */
const PING = 'event: ping\ndata: {"type":"ping"}\n\n'

export const messageRoute: GatewayRoute = {
  method: 'POST',
  url: '/messages',
  documented: documentedAs({
    surface: 'anthropic',
    summary: 'Answer with a message',
    description: 'Members that are not listed go to routes that take them; what has no price is refused.',
    body: anthropicMessageRequestSchema,
    answer: anthropicMessageSchema,
    event: eventsOf(anthropicEventSchema),
    refused: REFUSED.call,
    isCall: true,
  }),
  handlerOf: answerMessage,
}

export const countRoute: GatewayRoute = {
  method: 'POST',
  url: '/messages/count_tokens',
  documented: documentedAs({
    surface: 'anthropic',
    summary: 'Count the tokens of a prompt',
    description: 'As many as would be held. It costs nothing.',
    body: anthropicCountRequestSchema,
    answer: anthropicCountSchema,
    refused: REFUSED.count,
  }),
  handlerOf: countTokens,
}

function answerMessage(deps: GatewayDeps): RouteHandlerMethod {
  return async (request, reply) => {
    const asked = parseBody(anthropicMessageRequestSchema, request.body)
    const { model } = asked
    const body = toMessageBody(asked, await modelFor(deps, callerOfRequest(request), model))
    const asking = await askingOf(deps, request, { model, body, kind: 'anthropic.messages' })
    const controller = abortWithClient(reply)
    if (!asked.stream) {
      const given = await ask(deps.engine, { ...asking.question, signal: controller.signal })
      tellPaid(reply, given)
      return reply.send(toMessage(model, given))
    }
    return streamAnswer(deps.engine, reply, {
      ...asking,
      controller,
      aliveEvent: PING,
      writerOn: (stream, known) => new MessageWriter(stream, { ...known, model }),
      refuse: (stream, refusal) => stream.send(toAnthropicError(refusal, requestIdOf(reply)), 'error'),
    })
  }
}

/** By the tokeniser of the model's first route, or a bound in bytes. */
function countTokens(deps: GatewayDeps): RouteHandlerMethod {
  return async (request) => {
    const asked = parseBody(anthropicCountRequestSchema, request.body)
    const model = await modelFor(deps, callerOfRequest(request), asked.model)
    const [route] = model.routes
    if (!route) throw new Error(`model ${model.name} has no routes`)
    const boundOn = promptBounds(deps.engine.tokens, { ...toPromptBody(asked), maxTokens: 1 })
    const { tokens } = await boundOn({ ...route, contextTokens: Infinity })
    return { input_tokens: tokens }
  }
}
