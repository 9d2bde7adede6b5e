import { createHmac } from 'node:crypto'
import type { TestApi } from './api.ts'

export const STRIPE_SECRET = 'whsec_of_the_payment_provider'

/** What Stripe tells of a payment of 25 USD, unless it is changed. */
export function payment(walletId: string, change: object = {}): string {
  const object = {
    id: 'pi_1',
    amount_received: 2_500,
    currency: 'usd',
    metadata: { purser_wallet_id: walletId },
    ...change,
  }
  return JSON.stringify({ id: 'evt_1', type: 'payment_intent.succeeded', data: { object } })
}

/** Tells it to the API as Stripe does, signed. */
export async function told(
  api: TestApi,
  body: string,
  signing: { readonly secret?: string; readonly atMs?: number } = {},
) {
  const time = Math.floor((signing.atMs ?? Date.now()) / 1_000)
  const signature = createHmac('sha256', signing.secret ?? STRIPE_SECRET)
    .update(`${time}.${body}`)
    .digest('hex')
  const { statusCode, body: answer } = await api.app.inject({
    method: 'POST',
    url: '/api/v1/payments/stripe',
    headers: { 'content-type': 'application/json', 'stripe-signature': `t=${time},v0=00,v1=${signature}` },
    payload: body,
  })
  const parsed: unknown = JSON.parse(answer)
  return { status: statusCode, body: parsed }
}
