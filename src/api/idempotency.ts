import { Problem } from '#contracts/codes.ts'
import { canonical } from '#db/call.ts'
import { answerOnce, findAnswer, type Effect, type OnceRequest } from '#db/idempotency.ts'
import { sha256 } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { callerOfRequest, tenantDb } from './access.ts'
import { auditChange, type Change } from './audit.ts'
import { refuseChanged, versionToChange } from './etag.ts'

declare module 'fastify' {
  interface FastifyRequest {
    once: OnceRequest | null
  }
}

const HEADER = 'idempotency-key'
const REPLAYED_HEADER = 'idempotency-replayed'
/** Visible ASCII, as it stands in a header. */
const KEY = /^[\x21-\x7e]{1,255}$/

/** For the documentation of every POST; the hook below checks it. */
export const idempotencyHeaders = z.looseObject({
  [HEADER]: z.string().optional().meta({
    description: 'At most 255 visible ASCII characters. The same request with the same key has its effect once.',
    pattern: KEY.source,
  }),
})

/** Remembers what was asked before validation changes it: its digest tells a repeat from another request. */
export function readIdempotencyKeys(app: FastifyInstance): void {
  app.decorateRequest('once', null)
  app.addHook('preValidation', async (request) => {
    const key = request.headers[HEADER]
    if (request.method !== 'POST' || key === undefined) return
    if (typeof key !== 'string' || !KEY.test(key)) {
      throw new Problem('invalid_request', 'header.idempotency-key: is not 1 to 255 visible ASCII characters', {
        extra: { errors: [{ path: 'header.idempotency-key', message: 'is not 1 to 255 visible ASCII characters' }] },
      })
    }
    const caller = callerOfRequest(request)
    const { method, url, body } = request
    request.once = {
      scope: caller.projectId ?? caller.organisationId,
      key,
      // What a file is, is said beside it.
      digest: Buffer.isBuffer(body)
        ? digestOfFile(`${method} ${url}`, body)
        : digestOf(`${method} ${url.split('?')[0]}`, body),
    }
  })
}

function digestOfFile(what: string, file: Buffer): Buffer {
  return createHash('sha256').update(`${what}\n`).update(file).digest()
}

function digestOf(what: string, body: unknown): Buffer {
  try {
    return sha256(`${what}\n${canonical(body)}`)
  } catch (error) {
    if (error instanceof RangeError) throw new Problem('invalid_request', 'The body is nested too deep.')
    throw error
  }
}

/** Answers a POST whose effect happens once for its Idempotency-Key. `schema` is that of its answer. */
export async function answerPost<Schema extends z.ZodType>(
  exchange: { readonly request: FastifyRequest; readonly reply: FastifyReply; readonly schema: Schema },
  effect: (trx: Transaction<Database>) => Promise<Change<z.output<Schema>>>,
): Promise<z.output<Schema>> {
  const { request, reply, schema } = exchange
  const answer = await answerOnce(tenantDb(request), request.once ?? undefined, async (trx) => {
    const change = await effect(trx)
    await auditChange(trx, request, change)
    return change
  })
  if (answer.replayed) {
    request.isAudited = true
    reply.header(REPLAYED_HEADER, 'true')
  }
  reply.code(answer.status)
  return schema.parse(answer.body)
}

/** Answers a PUT, PATCH or DELETE, whose effect is one transaction: none, if If-Match means another version. */
export async function answerChange<Body>(
  { request, reply }: { readonly request: FastifyRequest; readonly reply: FastifyReply },
  effect: (trx: Transaction<Database>) => Promise<Change<Body>>,
): Promise<Body> {
  const { status, body } = await tenantDb(request)
    .transaction()
    .execute(async (trx) => {
      const version = await versionToChange(trx, request)
      const change = await effect(trx)
      refuseChanged(request, version)
      await auditChange(trx, request, change)
      return change
    })
  reply.code(status)
  return body
}

/**
 * Answers a POST whose effect is too long for one transaction and harmless to repeat: it is done first, unless it was
 * answered before, and its answer is stored afterwards.
 */
export async function answerRepeatablePost<Schema extends z.ZodType>(
  exchange: { readonly request: FastifyRequest; readonly reply: FastifyReply; readonly schema: Schema },
  effect: () => Promise<Effect<z.output<Schema>>>,
): Promise<z.output<Schema>> {
  const { once } = exchange.request
  const done = once && (await findAnswer(tenantDb(exchange.request), once)) ? undefined : await effect()
  return answerPost(exchange, () => (done ? Promise.resolve(done) : effect()))
}
