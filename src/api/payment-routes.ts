import { Problem } from '#contracts/codes.ts'
import { nanoOfStripe, stripeEventSchema, stripePaymentSchema } from '#contracts/stripe-event.ts'
import { writeAudit } from '#db/audit.ts'
import type { Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { organisationOf } from '#db/project.ts'
import type { Database } from '#db/schema.ts'
import { tenantOfWallet } from '#db/wallet.ts'
import type { Transaction } from 'kysely'
import { createHmac, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { notFound } from './access.ts'
import type { Api, ApiDeps } from './api-deps.ts'
import { bookOrAsk, depositView, requestedView, type Booking } from './deposit-booking.ts'
import { problemResponses } from './documentation.ts'
import { problemOf } from './validation.ts'

/** A signature that is older is a repeat of somebody else's. In seconds. */
const TOLERANCE = 300
const PAID = 'payment_intent.succeeded'

const REFUSALS = [
  'invalid_request',
  'invalid_amount',
  'unauthorized',
  'not_found',
  'payload_too_large',
  'unsupported_media_type',
  'reference_mismatch',
  'internal',
  'overloaded',
  'store_unavailable',
] as const

const answerSchema = z.object({
  received: z.literal(true),
  deposit: z.enum(['booked', 'waiting', 'ignored']).describe('`ignored`: an event that brings no money.'),
})

/**
 * A payment provider's webhook: a payment becomes a deposit, once, however often it is told. The key is the signature: it
 * covers the body as it came.
 */
export function paymentRoutes(app: Api, { db, nowMs, approvalAbove, stripeSecret }: ApiDeps): void {
  app.removeContentTypeParser('application/json')
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_, body, done) => done(null, body))
  app.post(
    '/payments/stripe',
    {
      schema: {
        tags: ['Wallets'],
        security: [{ signature: [] }],
        summary: "Stripe's webhook: a payment becomes a deposit",
        description:
          'Direct money for the wallet in metadata.purser_wallet_id of the payment. Its id is the reference.',
        response: { 200: answerSchema, ...problemResponses(REFUSALS) },
      },
    },
    async (request) => {
      const { body, headers } = request
      if (!Buffer.isBuffer(body)) throw new Problem('invalid_request', 'The body is not JSON.')
      checkSignature(body, headers['stripe-signature'], { secret: stripeSecret, nowMs: nowMs() })
      const event = parse(stripeEventSchema, jsonOf(body))
      if (event.type !== PAID) return { received: true as const, deposit: 'ignored' as const }
      const { id, amount_received, currency: code, metadata } = parse(stripePaymentSchema, event.data.object)
      const walletId = metadata.purser_wallet_id
      const scope = await tenantOfWallet(db, walletId)
      if (!scope) throw notFound('wallet', walletId)
      const currency = code.toUpperCase()
      const amount = nanoOfStripe(amount_received, currency)
      const deposit = {
        id: newId(nowMs()),
        walletId,
        balanceClass: 'direct',
        currency,
        amount,
        reference: `stripe ${id}`,
      } as const
      const booking = await db.transaction().execute(async (trx) => {
        const booked = await bookOrAsk(trx, scope, { deposit, askedBy: null, above: approvalAbove, nowMs: nowMs() })
        if (booked.isNew) await writeDown(trx, scope, booked)
        return booked
      })
      return {
        received: true as const,
        deposit: booking.kind === 'booked' ? ('booked' as const) : ('waiting' as const),
      }
    },
  )
}

/** In the audit log as if an operator had made it, but by nobody's key. */
async function writeDown(trx: Transaction<Database>, scope: Scope, booking: Booking): Promise<void> {
  const organisationId = await organisationOf(trx, scope)
  const after = booking.kind === 'booked' ? depositView(booking.deposit) : requestedView(booking.request)
  const who = { organisationId, projectId: scope.projectId, keyId: null }
  await writeAudit(trx, { ...who, action: 'deposit.make', target: after.id, before: null, after })
}

/** `t=<seconds>,v1=<hex>`, several v1 while a secret is rotated. Source: docs.stripe.com/webhooks/signature. */
function checkSignature(
  body: Buffer,
  header: string | readonly string[] | undefined,
  { secret, nowMs }: { readonly secret: string | undefined; readonly nowMs: number },
): void {
  const parts = typeof header === 'string' ? header.split(',').map((part) => part.trim().split('=')) : []
  const time = parts.find(([name]) => name === 't')?.[1] ?? ''
  const isFresh = /^\d{1,12}$/.test(time) && Math.abs(nowMs / 1_000 - Number(time)) <= TOLERANCE
  const expected =
    secret === undefined ? undefined : createHmac('sha256', secret).update(`${time}.`).update(body).digest()
  const isSigned = parts.some(([name, value = '']) => {
    const given = Buffer.from(value, 'hex')
    return (
      name === 'v1' && expected !== undefined && given.length === expected.length && timingSafeEqual(given, expected)
    )
  })
  if (isFresh && isSigned) return
  throw new Problem('unauthorized', 'The signature is not that of the payment provider, or too old.', {
    remedy: 'Set PURSER_STRIPE_WEBHOOK_SECRET to the signing secret of the endpoint.',
  })
}

function jsonOf(body: Buffer): unknown {
  try {
    const value: unknown = JSON.parse(body.toString())
    return value
  } catch {
    throw new Problem('invalid_request', 'The body is not valid JSON.')
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw problemOf(parsed.error.issues, 'body')
}
