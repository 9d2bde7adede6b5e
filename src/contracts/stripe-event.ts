import { z } from 'zod'

/**
 * What is read of Stripe's `payment_intent.succeeded`. Amounts are in the smallest unit of the currency. Source: Stripe's
 * API reference, events and payment intents.
 */
export const stripeEventSchema = z.looseObject({
  id: z.string().min(1).max(255),
  type: z.string(),
  data: z.looseObject({ object: z.looseObject({}) }),
})

export const stripePaymentSchema = z.looseObject({
  id: z.string().min(1).max(190),
  amount_received: z.int().positive(),
  currency: z.string().regex(/^[a-z]{3}$/),
  metadata: z.looseObject({
    purser_wallet_id: z.uuid('names no wallet: set metadata.purser_wallet_id on the payment'),
  }),
})

/** Currencies without a smaller unit, and with a thousand of them. Source: docs.stripe.com/currencies. */
const WHOLE = new Set('BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF'.split(' '))
const THOUSANDTHS = new Set('BHD JOD KWD OMR TND'.split(' '))
const NANO_PER_UNIT = 1_000_000_000n

/** An amount of Stripe's in nano of its currency. */
export function nanoOfStripe(amount: number, currency: string): bigint {
  const perUnit = WHOLE.has(currency) ? 1n : THOUSANDTHS.has(currency) ? 1_000n : 100n
  return (BigInt(amount) * NANO_PER_UNIT) / perUnit
}
