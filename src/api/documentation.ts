import { PROBLEM_TYPE, problemSchema } from '#contracts/api-problem.ts'
import { PROBLEMS, type ProblemCode } from '#contracts/codes.ts'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema, RouteOptions } from 'fastify'
import { z } from 'zod'
import { documentOf, operationOf } from './document.ts'
import { ifMatchHeaders, ifNoneMatchHeaders } from './etag.ts'
import { idempotencyHeaders } from './idempotency.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Problems of this route besides those that follow from its shape. */
    problems?: readonly ProblemCode[]
    /** What the document says of a route that is not checked by schemas. */
    documented?: FastifySchema
  }
}

export const DOCUMENT_PATH = '/api/openapi.json'
export const PAGE_PATH = '/api/docs'
const LOGO = `<svg xmlns="http://www.w3.org/2000/svg" width="120" height="40"><text x="0" y="28" font-family="sans-serif"
  font-size="26" font-weight="600" fill="#fff">Purser</text></svg>`

/** The OpenAPI document and its page. Under `/api` it is made of the schemas that check requests and answers. */
export async function serveDocumentation(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Purser',
        version: '1',
        description:
          'Runs long AI tasks that cannot overspend. Money is a decimal string in the major unit with its currency. ' +
          'Failures under `/api` are RFC 9457 problems; `code` says which, `remedy` what to do. Under `/v1` clients of ' +
          'OpenAI and Anthropic are answered, and refused, in their own words.',
      },
      components: {
        securitySchemes: {
          key: { type: 'http', scheme: 'bearer' },
          apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
          signature: { type: 'apiKey', in: 'header', name: 'stripe-signature' },
        },
      },
    },
    transform: operationOf,
    transformObject: documentOf,
  })
  await app.register(swaggerUi, {
    routePrefix: PAGE_PATH,
    logo: { type: 'image/svg+xml', content: Buffer.from(LOGO), href: PAGE_PATH },
    theme: { title: 'Purser API' },
  })
  app.get(DOCUMENT_PATH, { schema: { hide: true } }, () => app.swagger())
}

/** Adds to each route behind a key what follows from its shape: the header, the key and the problems it may answer. */
export function documentRoutes(app: FastifyInstance): void {
  app.addHook('onRoute', (route) => {
    const schema = route.schema ?? {}
    route.schema = {
      ...schema,
      security: [{ key: [] }],
      ...headersOf(route),
      response: {
        ...responsesOf(schema.response),
        ...(route.method === 'GET' && { 304: UNCHANGED }),
        ...problemResponses(problemsOf(route)),
      },
    }
  })
}

const UNCHANGED = z.undefined().describe('It is what `If-None-Match` names.')

/** Headers that the hooks read. */
function headersOf({ method, config }: RouteOptions): { readonly headers?: z.ZodType } {
  if (method === 'POST') return { headers: idempotencyHeaders }
  if (method === 'GET') return { headers: ifNoneMatchHeaders }
  return config?.versioned === undefined ? {} : { headers: ifMatchHeaders }
}

function responsesOf(response: unknown): Readonly<Record<string, unknown>> {
  return typeof response === 'object' && response !== null ? { ...response } : {}
}

function problemsOf(route: RouteOptions): readonly ProblemCode[] {
  const { config, schema = {}, url, method } = route
  const isPost = method === 'POST'
  const hasBody = isPost || schema.body !== undefined
  const isNamed = url.includes(':')
  const own: readonly ProblemCode[] = config?.problems ?? []
  return [
    // A part of an address may be no UTF-8.
    ...(hasBody || isNamed || schema.querystring !== undefined ? (['invalid_request'] as const) : []),
    'unauthorized',
    'forbidden',
    ...(isNamed ? (['not_found'] as const) : []),
    ...(hasBody ? (['payload_too_large', 'unsupported_media_type'] as const) : []),
    ...(isPost ? (['idempotency_mismatch'] as const) : []),
    ...(config?.versioned !== undefined && method !== 'GET' && !isPost ? (['changed_meanwhile'] as const) : []),
    ...own,
    'too_many_failures',
    'internal',
    'overloaded',
    'store_unavailable',
  ]
}

/** The answers of a route that stand for problems. */
export function problemResponses(codes: readonly ProblemCode[]): Readonly<Record<string, unknown>> {
  const byStatus = new Map<number, ProblemCode[]>()
  for (const code of new Set(codes)) {
    const { status } = PROBLEMS[code]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries(
    Array.from(byStatus, ([status, some]) => [
      status,
      {
        description: some.map((code) => `\`${code}\``).join(', '),
        content: { [PROBLEM_TYPE]: { schema: problemSchema } },
      },
    ]),
  )
}
