import type { FastifyInstance } from 'fastify'
import type { GatewayRoute } from './gateway-route.ts'
import { Refusal } from './refusal.ts'

interface Listed {
  readonly routes: readonly GatewayRoute[]
  readonly prefix: string
}

/** An address below the prefix where nothing is: what is there instead. */
export function nothingAt(method: string, url: string, { routes, prefix }: Listed): Refusal {
  const path = url.split('?')[0]?.slice(0, 200) ?? ''
  const isTwice = path.startsWith(`${prefix}${prefix}/`)
  const known = routes.map((route) => `${route.method} ${prefix}${route.url}`)
  return new Refusal('not_found', `There is nothing at ${method} ${path}.`, {
    remedy: isTwice
      ? `The base URL leads to ${prefix} twice: OpenAI's clients need it once, and Anthropic's add it by themselves.`
      : `There are ${known.join(', ')}.`,
  })
}

/** Clients whose base URL lacks the prefix are told so in their own shape, whether they have a key or not. */
export function refuseWithoutPrefix(app: FastifyInstance, { routes, prefix }: Listed): void {
  for (const { method, url } of routes) {
    app.route({
      method,
      url,
      schema: { hide: true },
      // Before any body is read.
      onRequest: (request, _reply, done) => {
        const path = request.url.split('?')[0]?.slice(0, 200)
        done(
          new Refusal('not_found', `There is nothing at ${method} ${path}.`, {
            remedy: `The base URL of OpenAI's clients ends with ${prefix}; that of Anthropic's is the server's alone.`,
          }),
        )
      },
      handler: () => {
        throw new Error('it was refused')
      },
    })
  }
}
