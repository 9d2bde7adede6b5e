import Fastify, { type FastifyInstance } from 'fastify'
import { FailedKeys } from '#calls/failed-keys.ts'
import { USUAL_GATEWAY_LIMITS } from '#contracts/gateway-limits.ts'
import { keepKeyUses } from '#db/key-use.ts'
import { requireKey } from './access.ts'
import { auditChanges } from './audit.ts'
import { auditRoutes } from './audit-routes.ts'
import type { ApiDeps } from './api-deps.ts'
import { accountLedgerRoutes, balanceRoutes } from './balance-routes.ts'
import { callListRoutes } from './call-list-routes.ts'
import { catalogRoutes } from './catalog-routes.ts'
import { catalogVersionRoutes } from './catalog-version-routes.ts'
import { corpusReadRoutes, corpusRoutes, passageRoutes } from './corpus-routes.ts'
import { datasetReadRoutes, datasetUploadRoutes } from './dataset-routes.ts'
import { depositDecisionRoutes, depositRequestRoutes } from './deposit-request-routes.ts'
import { depositReadRoutes, depositRoutes } from './deposit-routes.ts'
import { documentRoutes, PAGE_PATH, serveDocumentation } from './documentation.ts'
import { tellVersions } from './etag.ts'
import { eventRoutes } from './event-routes.ts'
import { externalRunRoutes } from './external-run-routes.ts'
import { healthRoute } from './health-route.ts'
import { readIdempotencyKeys } from './idempotency.ts'
import { loggerOf } from './log.ts'
import { answerBadAddress, answerProblems } from './problem-answer.ts'
import { limitRoutes } from './limit-routes.ts'
import { invoiceRoutes } from './invoice-routes.ts'
import { marginRoutes } from './margin-routes.ts'
import { organisationRoutes } from './organisation-routes.ts'
import { paymentRoutes } from './payment-routes.ts'
import { priceRoutes } from './price-routes.ts'
import { keyRoutes, operatorKeyRoutes } from './key-routes.ts'
import { keyCallRoutes } from './key-call-routes.ts'
import { providerRoutes } from './provider-routes.ts'
import { projectRoutes } from './project-routes.ts'
import { quoteRoutes } from './quote-routes.ts'
import { reconcileRoutes } from './reconcile-routes.ts'
import { refundRoutes } from './refund-routes.ts'
import { reportRoutes, runReadRoutes } from './run-read-routes.ts'
import { rowCountRoutes, rowResultRoutes } from './row-routes.ts'
import { routeHealthRoutes } from './route-health-routes.ts'
import { runActionRoutes } from './run-action-routes.ts'
import { runAgainRoutes } from './run-again-routes.ts'
import { runStartRoutes } from './run-routes.ts'
import { scheduleChangeRoutes, scheduleReadRoutes, scheduleRoutes } from './schedule-routes.ts'
import { answerNoRequest, sendSecurityHeaders } from './security-headers.ts'
import { statementRoutes } from './statement-routes.ts'
import { validateRequests } from './validation.ts'
import { walletRoutes } from './wallet-routes.ts'
import { deliveryRoutes, webhookChangeRoutes, webhookListRoutes, webhookRoutes } from './webhook-routes.ts'

/** Largest body of a request, in bytes; uploads of documents have a limit of their own. */
const BODY_LIMIT_BYTES = 1024 * 1024
/** From a request's first byte to its last, in milliseconds: a slow sender holds no socket for ever. */
const REQUEST_TIMEOUT_MS = 30_000
const HEADERS_TIMEOUT_MS = 10_000
/** How often Node looks whose time is over. */
const TIMEOUT_CHECK_MS = 5_000
/** Ids are 36 characters; anything much longer is none. */
const MAX_PARAM_LENGTH = 200

/** All that is behind a key. */
const ROUTES = Object.freeze([
  organisationRoutes,
  projectRoutes,
  keyRoutes,
  operatorKeyRoutes,
  keyCallRoutes,
  callListRoutes,
  auditRoutes,
  walletRoutes,
  balanceRoutes,
  accountLedgerRoutes,
  limitRoutes,
  depositRoutes,
  depositReadRoutes,
  depositRequestRoutes,
  depositDecisionRoutes,
  refundRoutes,
  quoteRoutes,
  statementRoutes,
  catalogRoutes,
  catalogVersionRoutes,
  routeHealthRoutes,
  providerRoutes,
  priceRoutes,
  marginRoutes,
  invoiceRoutes,
  corpusRoutes,
  corpusReadRoutes,
  passageRoutes,
  datasetUploadRoutes,
  datasetReadRoutes,
  runStartRoutes,
  externalRunRoutes,
  runAgainRoutes,
  runActionRoutes,
  runReadRoutes,
  rowResultRoutes,
  rowCountRoutes,
  reportRoutes,
  scheduleRoutes,
  scheduleChangeRoutes,
  scheduleReadRoutes,
  eventRoutes,
  webhookRoutes,
  webhookListRoutes,
  webhookChangeRoutes,
  deliveryRoutes,
  reconcileRoutes,
])

/** The management API, ready to listen or to be asked by `inject`. */
export async function buildApi(deps: ApiDeps): Promise<FastifyInstance> {
  const { db, ...routeDeps } = deps
  const { trustedProxies = [] } = deps
  const app = Fastify({
    logger: loggerOf(deps.log),
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    http: { headersTimeout: HEADERS_TIMEOUT_MS, connectionsCheckingInterval: TIMEOUT_CHECK_MS },
    frameworkErrors: answerBadAddress,
    clientErrorHandler: answerNoRequest,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    exposeHeadRoutes: false,
    trustProxy: trustedProxies.length > 0 ? [...trustedProxies] : false,
    // Streams of events would keep a closing server open.
    forceCloseConnections: true,
  })
  app.removeContentTypeParser('text/plain')
  sendSecurityHeaders(app, (url) => url.startsWith(PAGE_PATH))
  validateRequests(app)
  answerProblems(app)
  await serveDocumentation(app)
  healthRoute(app.withTypeProvider(), deps)
  await app.register(
    async (scope) => {
      const uses = keepKeyUses(db, deps.nowMs)
      scope.addHook('onClose', () => uses.stop())
      const most = deps.failuresOfAddress ?? USUAL_GATEWAY_LIMITS.failuresOfAddress
      requireKey(scope, { db: db, uses, failed: new FailedKeys(most, () => performance.now()) })
      auditChanges(scope)
      tellVersions(scope)
      readIdempotencyKeys(scope)
      documentRoutes(scope)
      // Without the database: a route has it as its caller sees it.
      for (const routes of ROUTES) routes(scope.withTypeProvider(), routeDeps)
    },
    { prefix: '/api/v1' },
  )
  await app.register(async (scope) => paymentRoutes(scope.withTypeProvider(), deps), { prefix: '/api/v1' })
  return app
}
