import { FAILURES_WINDOW_MS } from '#calls/failed-keys.ts'
import { problemType, PROBLEM_TYPE, problemSchema, type ProblemBody } from '#contracts/api-problem.ts'
import { Problem, PROBLEMS, type ProblemCode } from '#contracts/codes.ts'
import { isStoreUnavailable } from '#db/database.ts'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { SECURITY_HEADERS } from './security-headers.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Who answers for addresses under a path that lead nowhere, in place of a problem. */
    addressAnswers: Map<string, AddressAnswer>
  }
}

type AddressAnswer = (request: FastifyRequest, reply: FastifyReply, code: 'invalid_request' | 'not_found') => void

/** Postgres' `numeric_value_out_of_range`. */
const NUMBER_OUT_OF_RANGE = '22003'
/** When the same request is worth sending again, in seconds: as long as failures are counted, or at once. */
function retryAfterSeconds(code: ProblemCode): number {
  return code === 'too_many_failures' ? FAILURES_WINDOW_MS / 1_000 : 1
}

/** What Fastify refuses by itself, before a handler runs. */
const OWN_REFUSALS: Readonly<
  Record<string, { readonly code: ProblemCode; readonly detail: string; readonly remedy?: string }>
> = Object.freeze({
  FST_ERR_CTP_BODY_TOO_LARGE: { code: 'payload_too_large', detail: 'The body is larger than this address takes.' },
  FST_ERR_CTP_EMPTY_JSON_BODY: {
    code: 'invalid_request',
    detail: 'The body is empty, and its media type says JSON.',
    remedy: 'Send a JSON object, or no Content-Type.',
  },
  FST_ERR_CTP_INVALID_JSON_BODY: {
    code: 'invalid_request',
    detail: 'The body is not valid JSON, or has a key such as __proto__.',
  },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: { code: 'invalid_request', detail: 'Content-Length does not fit the body.' },
})

/** Every failure is answered as a problem of the one table, and nothing of it leaks: no stack, no SQL. */
export function answerProblems(app: FastifyInstance): void {
  app.decorate('addressAnswers', new Map())
  app.setErrorHandler((error: FastifyError | Error, request, reply) => send(reply, request, problemOf(error, request)))
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0]?.slice(0, MAX_ECHO)
    return send(
      reply,
      request,
      new Problem('not_found', `There is nothing at ${request.method} ${path}.`, {
        remedy: 'The addresses are listed at /api/docs.',
      }),
    )
  })
}

/** An address that leads nowhere before routes are looked for: `%ff`, or an id as long as a letter. */
export function answerBadAddress(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const isTooLong = error.code === 'FST_ERR_MAX_PARAM_LENGTH'
  // No hook runs for such an address.
  void reply.headers(SECURITY_HEADERS)
  for (const [path, answer] of request.server.addressAnswers) {
    if (request.url.startsWith(path)) return answer(request, reply, isTooLong ? 'not_found' : 'invalid_request')
  }
  const problem = isTooLong
    ? new Problem('not_found', 'There is nothing at this address: a part of it is too long.', {
        remedy: 'An id has 36 characters. The addresses are listed at /api/docs.',
      })
    : new Problem('invalid_request', 'The address is not well-formed.', {
        remedy: 'Encode its parts as UTF-8 with %: encodeURIComponent does it.',
      })
  void send(reply, request, problem)
}

/** Most characters of an address that are repeated to the caller. */
const MAX_ECHO = 200

function problemOf(error: FastifyError | Error, request: FastifyRequest): Problem {
  if (error instanceof Problem) return error
  if ('code' in error && error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return unsupported(request)
  const known = 'code' in error ? OWN_REFUSALS[error.code] : undefined
  if (known) return new Problem(known.code, known.detail, known.remedy === undefined ? {} : { remedy: known.remedy })
  if (isDeadlock(error)) {
    request.log.warn({ err: error }, 'two transactions waited for each other')
    return new Problem('overloaded', 'Others changed the same thing at the same time.', {
      remedy: 'Send the request again.',
    })
  }
  if (isStoreUnavailable(error)) {
    request.log.warn({ err: error }, 'the database cannot be reached')
    return new Problem('store_unavailable', 'The database cannot be reached.', { remedy: 'Send the request again.' })
  }
  if ('code' in error && error.code === NUMBER_OUT_OF_RANGE) {
    return new Problem('invalid_amount', 'No wallet can hold that much.', { remedy: 'Send a smaller amount.' })
  }
  const status = 'statusCode' in error ? (error.statusCode ?? 500) : 500
  if (status >= 400 && status < 500) return new Problem('invalid_request', 'The request is not well-formed HTTP.')
  request.log.error({ err: error }, 'unexpected failure')
  return new Problem('internal', 'Something went wrong; it is in the log under this request id.', {
    extra: { requestId: request.id },
  })
}

/** A route that takes anything but JSON says what, in `consumes`. */
function unsupported({ routeOptions }: FastifyRequest): Problem {
  const { consumes = ['application/json'] } = routeOptions.schema ?? {}
  const named = consumes.length > 1 ? `one of ${consumes.join(', ')}` : consumes.join()
  return new Problem('unsupported_media_type', 'The body has no media type that this address takes.', {
    remedy: `Send the header Content-Type: ${named}.`,
  })
}

/** `deadlock_detected` and `serialization_failure`: rolled back, so sending it again is safe. */
function isDeadlock(error: Error): boolean {
  return 'code' in error && (error.code === '40P01' || error.code === '40001')
}

function send(reply: FastifyReply, request: FastifyRequest, problem: Problem): FastifyReply {
  const body = bodyOf(problem)
  if (problem.code === 'unauthorized') reply.header('www-authenticate', 'Bearer')
  if (body.status === 503 || body.status === 429) reply.header('retry-after', retryAfterSeconds(problem.code))
  request.log.debug({ code: problem.code, detail: problem.message }, 'answered with a problem')
  return reply.code(body.status).type(PROBLEM_TYPE).serializer(JSON.stringify).send(body)
}

function bodyOf(problem: Problem): ProblemBody {
  const { status, title } = PROBLEMS[problem.code]
  return problemSchema.parse({
    ...problem.extra,
    type: problemType(problem.code),
    title,
    status,
    detail: problem.message,
    code: problem.code,
    ...(problem.remedy !== undefined && { remedy: problem.remedy }),
  })
}
