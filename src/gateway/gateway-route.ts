import type { FastifyInstance, FastifySchema, RouteHandlerMethod } from 'fastify'
import type { GatewayDeps } from './gateway-deps.ts'

/** An address of the gateway. */
export interface GatewayRoute {
  readonly method: 'GET' | 'POST'
  /** Behind `/v1`. */
  readonly url: string
  /**
   * For the document only: bodies are parsed by the handler, which refuses in the words of the client, and answers are
   * written as they are, without a look at any schema.
   */
  readonly documented: FastifySchema
  readonly handlerOf: (deps: GatewayDeps) => RouteHandlerMethod
}

/** Has a route answer, and be documented. */
export function addRoute(app: FastifyInstance, { method, url, documented }: GatewayRoute, handler: RouteHandlerMethod) {
  app.route({ method, url, config: { documented }, handler })
}
