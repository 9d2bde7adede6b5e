import type { EmbedBody } from '#contracts/chat.ts'
import { openAiEmbeddingsSchema } from '#contracts/openai-answers.ts'
import { openAiEmbeddingsRequestSchema } from '#contracts/openai-embeddings.ts'
import type { RouteHandlerMethod } from 'fastify'
import { ask, type Reply } from '../ask.ts'
import { askingOf } from '../asking.ts'
import { documentedAs, REFUSED } from '../documented.ts'
import { abortWithClient, tellPaid } from '../exchange.ts'
import type { GatewayDeps } from '../gateway-deps.ts'
import type { GatewayRoute } from '../gateway-route.ts'
import { parseBody } from '../parse-body.ts'

type Encoding = 'float' | 'base64'

export const embeddingsRoute: GatewayRoute = {
  method: 'POST',
  url: '/embeddings',
  documented: documentedAs({
    surface: 'openai',
    summary: 'Embed texts',
    body: openAiEmbeddingsRequestSchema,
    answer: openAiEmbeddingsSchema,
    refused: REFUSED.call,
    isCall: true,
  }),
  handlerOf: answerEmbeddings,
}

function answerEmbeddings(deps: GatewayDeps): RouteHandlerMethod {
  return async (request, reply) => {
    const asked = parseBody(openAiEmbeddingsRequestSchema, request.body)
    const { model, input, dimensions, user } = asked
    const body: EmbedBody = {
      input: typeof input === 'string' ? [input] : input,
      ...(dimensions != null && { dimensions }),
      ...(user != null && { user }),
    }
    const { question } = await askingOf(deps, request, { model, body, kind: 'openai.embeddings' })
    const { signal } = abortWithClient(reply)
    const given = await ask(deps.engine, { ...question, signal })
    tellPaid(reply, given)
    return reply.send(toEmbeddings(model, given, asked.encoding_format ?? 'float'))
  }
}

function toEmbeddings(model: string, { answer, receipt }: Reply, encoding: Encoding) {
  const tokens = receipt?.usage?.input ?? 0
  return {
    object: 'list' as const,
    data: (answer.vectors ?? []).map((packed, index) => ({
      object: 'embedding' as const,
      index,
      embedding: encoding === 'base64' ? packed : unpackVector(packed),
    })),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  }
}

const BYTES_PER_FLOAT = 4

function unpackVector(packed: string): readonly number[] {
  const bytes = Buffer.from(packed, 'base64')
  return Array.from({ length: bytes.length / BYTES_PER_FLOAT }, (_, index) =>
    bytes.readFloatLE(index * BYTES_PER_FLOAT),
  )
}
