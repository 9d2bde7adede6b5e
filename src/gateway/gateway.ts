import type { Engine } from '#calls/engine.ts'
import { isStoreUnavailable } from '#db/database.ts'
import { keepKeyUses } from '#db/key-use.ts'
import { Problem } from '#contracts/codes.ts'
import { USUAL_GATEWAY_LIMITS, type GatewayLimits } from '#contracts/gateway-limits.ts'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { requireProjectKey } from './access.ts'
import { refuseDeep } from './depth.ts'
import { Doorkeeper } from './doorkeeper.ts'
import { drainOnClose } from './drain.ts'
import type { GatewayDeps } from './gateway-deps.ts'
import { createKeyDesk } from './key-desk.ts'
import { toAnthropicError } from './anthropic/errors.ts'
import { countRoute, messageRoute } from './anthropic/message-routes.ts'
import { addRoute } from './gateway-route.ts'
import { nothingAt, refuseWithoutPrefix } from './lost-addresses.ts'
import { modelRoute, modelsRoute } from './model-routes.ts'
import { chatRoute } from './openai/chat-route.ts'
import { embeddingsRoute } from './openai/embeddings-route.ts'
import { toOpenAiError } from './openai/errors.ts'
import { refuseKeptResponses, responsesRoute } from './openai/responses-route.ts'
import { createPayers } from './payer.ts'
import { Refusal, type RefusalCode } from './refusal.ts'
import { nameRequests, requestIdOf, speaksAnthropic } from './surface.ts'

const RETRY_AFTER_SECONDS = 1
/** Proxies give a silent connection up after 30 s or a minute, and whoever asked then asks, and pays, again. */
const KEEP_ALIVE_MS = 15_000
const PREFIX = '/v1'
const NO_ADDRESS = 'The address leads nowhere: encode its parts as UTF-8 with %, and keep them short.'

const ROUTES = Object.freeze([
  chatRoute,
  responsesRoute,
  embeddingsRoute,
  messageRoute,
  countRoute,
  modelsRoute,
  modelRoute,
])

export interface GatewayOptions {
  readonly engine: Engine
  /** How long what is in flight may take when the server ends. */
  readonly drainTimeoutMs: number
  /** Left out: the usual ones. */
  readonly limits?: GatewayLimits
  /** How long a stream may be silent; left out: less than proxies and clients wait. */
  readonly keepAliveMs?: number
}

/**
 * What any client of a model provider can speak to, under `/v1`. Every request is a call of the one engine: nothing is
 * sent that is not held.
 */
export async function registerGateway(
  app: FastifyInstance,
  { engine, drainTimeoutMs, limits = USUAL_GATEWAY_LIMITS, keepAliveMs = KEEP_ALIVE_MS }: GatewayOptions,
): Promise<void> {
  const monotonicMs = () => performance.now()
  const door = new Doorkeeper(limits, monotonicMs)
  const uses = keepKeyUses(engine.db, engine.nowMs)
  app.addHook('onClose', () => uses.stop())
  const deps: GatewayDeps = {
    engine,
    keys: createKeyDesk({ db: engine.db, uses, monotonicMs }),
    payers: createPayers(engine),
    keepAliveMs,
  }
  app.addressAnswers.set(`${PREFIX}/`, (request, reply, code) => {
    void refuse(request, reply, new Refusal(code, NO_ADDRESS))
  })
  await app.register(
    async (scope) => {
      drainOnClose(scope, engine, drainTimeoutMs)
      nameRequests(scope, engine.nowMs)
      door.guard(scope)
      requireProjectKey(scope, deps)
      door.guardKeys(scope)
      scope.addHook('preValidation', (request, _reply, done) => {
        refuseDeep(request.body)
        done()
      })
      scope.addHook('onRoute', (route) => {
        route.bodyLimit ??= limits.bodyBytes
      })
      scope.setErrorHandler((error: FastifyError | Error, request, reply) =>
        refuse(request, reply, refusalFor(error, request)),
      )
      scope.setNotFoundHandler((request, reply) =>
        refuse(request, reply, nothingAt(request.method, request.url, { routes: ROUTES, prefix: PREFIX })),
      )
      for (const route of ROUTES) addRoute(scope, route, route.handlerOf(deps))
      refuseKeptResponses(scope)
    },
    { prefix: PREFIX },
  )
  await app.register(async (scope) => {
    nameRequests(scope, engine.nowMs)
    scope.setErrorHandler((error: FastifyError | Error, request, reply) =>
      refuse(request, reply, refusalFor(error, request)),
    )
    refuseWithoutPrefix(scope, { routes: ROUTES, prefix: PREFIX })
  })
}

/** Registers what is documented of the gateway, and nothing that answers: for the document of an API without an engine. */
export function documentGateway(app: FastifyInstance): void {
  for (const route of ROUTES) {
    addRoute(app, { ...route, url: `${PREFIX}${route.url}` }, () => {
      throw new Refusal('unavailable', 'There is no engine here.')
    })
  }
}

/** In the words of the client. */
function refuse(request: FastifyRequest, reply: FastifyReply, refusal: Refusal): FastifyReply {
  const { retryAfterSeconds, callId } = refusal
  const body = speaksAnthropic(request) ? toAnthropicError(refusal, requestIdOf(reply)) : toOpenAiError(refusal)
  return reply
    .code(refusal.status)
    .headers({
      // Clients look here before they repeat by themselves.
      'x-should-retry': String(refusal.isWorthRepeating),
      ...(retryAfterSeconds !== undefined && { 'retry-after': retryAfterSeconds }),
      ...(callId !== undefined && { 'x-purser-call-id': callId }),
    })
    .send(body)
}

const OWN_REFUSALS: Readonly<Record<string, readonly [RefusalCode, string]>> = Object.freeze({
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['invalid_request', 'The body is not JSON: send Content-Type: application/json.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['request_too_large', 'The body is larger than this address takes.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['invalid_request', 'The body is empty.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['invalid_request', 'The body is not valid JSON, or has a key such as __proto__.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['invalid_request', 'Content-Length does not fit the body.'],
})

/** Nothing of a failure of ours leaks: no stack, no SQL. */
function refusalFor(error: FastifyError | Error, request: FastifyRequest): Refusal {
  if (error instanceof Refusal) return error
  const own = 'code' in error ? OWN_REFUSALS[error.code] : undefined
  if (own) return new Refusal(...own)
  const away = { retryAfterSeconds: RETRY_AFTER_SECONDS }
  if (isStoreUnavailable(error) || (error instanceof Problem && error.code === 'overloaded')) {
    request.log.warn({ err: error }, 'a request could not be taken on')
    return new Refusal('unavailable', 'Too much at once, or the database is away.', away)
  }
  if ('statusCode' in error && isOfClient(error)) {
    return new Refusal('invalid_request', 'The request is not well-formed HTTP.')
  }
  request.log.error({ err: error }, 'a request failed')
  return new Refusal('internal', 'Something is wrong on our side.')
}

/** What Fastify refuses by itself. */
function isOfClient({ code, statusCode = 500 }: FastifyError): boolean {
  return code.startsWith('FST_') && statusCode < 500
}
