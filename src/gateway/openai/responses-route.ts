import { openAiResponseRequestSchema } from '#contracts/openai-responses.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { callerOfRequest } from '../access.ts'
import { streamAnswer } from '../answer-stream.ts'
import { ask } from '../ask.ts'
import { abortWithClient, idempotencyKeyOf, tellPaid } from '../exchange.ts'
import { payerFor, type GatewayDeps } from '../gateway-deps.ts'
import { FITTED, UNBOUNDED_TOKENS } from '../output-bound.ts'
import { parseBody } from '../parse-body.ts'
import { Refusal } from '../refusal.ts'
import { toOpenAiError } from './errors.ts'
import { ResponseWriter, toResponse } from './responses-answer.ts'
import { toResponseBody } from './responses-request.ts'

/** `POST /v1/responses`. */
export function responsesRoute(app: FastifyInstance, deps: GatewayDeps): void {
  const { engine } = deps
  app.post('/responses', async (request, reply) => {
    const asked = parseBody(openAiResponseRequestSchema, request.body)
    const body = toResponseBody(asked)
    const { payer } = await payerFor(deps, callerOfRequest(request), asked.model)
    const isBounded = body.maxTokens !== UNBOUNDED_TOKENS
    const question = {
      payer: isBounded ? payer : { ...payer, tight: payer.tight ?? FITTED },
      model: asked.model,
      body,
      kind: 'openai.responses',
      idempotencyKey: idempotencyKeyOf(request),
    }
    const controller = abortWithClient(reply)
    if (!asked.stream) {
      const given = await ask(engine, { ...question, signal: controller.signal })
      tellPaid(reply, given)
      return reply.send(toResponse({ asked, callId: given.callId, createdMs: engine.nowMs() }, given))
    }
    let writer: ResponseWriter | undefined
    return streamAnswer(engine, reply, {
      question,
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
  })

  app.all<{ Params: { id: string } }>(
    '/responses/:id',
    async ({ params: { id } }: FastifyRequest<{ Params: { id: string } }>) => {
      throw new Refusal('not_found', `There is no response ${id.slice(0, 100)}: responses are not kept here.`)
    },
  )
}
