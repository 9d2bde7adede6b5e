import { newId } from '#db/ids.ts'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

const REQUEST_ID = 'request-id'

/** Whether a request is answered in Anthropic's words: its path says so, or the header that its clients all send. */
export function speaksAnthropic({ url, headers }: FastifyRequest): boolean {
  return /^(?:\/v1)?\/messages(?:[/?]|$)/.test(url) || headers['anthropic-version'] !== undefined
}

/** Anthropic's clients tell their users the id of a request, refused or not. */
export function nameRequests(app: FastifyInstance, nowMs: () => number): void {
  app.addHook('onRequest', (request, reply, done) => {
    if (speaksAnthropic(request)) void reply.header(REQUEST_ID, `req_${newId(nowMs())}`)
    done()
  })
}

export function requestIdOf(reply: FastifyReply): string | null {
  const id = reply.getHeader(REQUEST_ID)
  return typeof id === 'string' ? id : null
}
