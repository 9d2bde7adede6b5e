import { eventsOf } from '#contracts/documented.ts'
import { openAiResponseEventSchema, openAiResponseSchema } from '#contracts/openai-response-answers.ts'
import { openAiResponseRequestSchema } from '#contracts/openai-responses.ts'
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import { streamAnswer } from '../answer-stream.ts'
import { ask } from '../ask.ts'
import { askingOf } from '../asking.ts'
import { documentedAs, REFUSED } from '../documented.ts'
import { abortWithClient, tellPaid } from '../exchange.ts'
import type { GatewayDeps } from '../gateway-deps.ts'
import type { GatewayRoute } from '../gateway-route.ts'
import { parseBody } from '../parse-body.ts'
import { Refusal } from '../refusal.ts'
import { toOpenAiError } from './errors.ts'
import { ResponseWriter, toResponse } from './responses-answer.ts'
import { toResponseBody } from './responses-request.ts'

export const responsesRoute: GatewayRoute = {
  method: 'POST',
  url: '/responses',
  documented: documentedAs({
    surface: 'openai',
    summary: 'Answer with a response',
    description: 'Nothing is kept for later: the whole conversation is sent as `input`.',
    body: openAiResponseRequestSchema,
    answer: openAiResponseSchema,
    event: eventsOf(openAiResponseEventSchema),
    refused: REFUSED.call,
    isCall: true,
  }),
  handlerOf: answerResponse,
}

function answerResponse(deps: GatewayDeps): RouteHandlerMethod {
  const { engine } = deps
  return async (request, reply) => {
    const asked = parseBody(openAiResponseRequestSchema, request.body)
    const { model } = asked
    const asking = await askingOf(deps, request, { model, body: toResponseBody(asked), kind: 'openai.responses' })
    const controller = abortWithClient(reply)
    if (!asked.stream) {
      const given = await ask(engine, { ...asking.question, signal: controller.signal })
      tellPaid(reply, given)
      return reply.send(toResponse({ asked, callId: given.callId, createdMs: engine.nowMs() }, given))
    }
    let writer: ResponseWriter | undefined
    return streamAnswer(engine, reply, {
      ...asking,
      controller,
      writerOn(stream, { callId }) {
        writer = new ResponseWriter(stream, { asked, callId, createdMs: engine.nowMs() })
        return writer
      },
      refuse(stream, refusal) {
        const event = { type: 'error', sequence_number: writer?.sequence ?? 0, ...toOpenAiError(refusal) }
        stream.send(event, 'error')
      },
    })
  }
}

/** Clients that ask for a response by its id are told why there is none. */
export function refuseKeptResponses(app: FastifyInstance): void {
  app.route<{ Params: { id: string } }>({
    method: ['GET', 'DELETE'],
    url: '/responses/:id',
    schema: { hide: true },
    handler: async ({ params: { id } }) => {
      throw new Refusal('not_found', `There is no response ${id.slice(0, 100)}: responses are not kept here.`)
    },
  })
}
