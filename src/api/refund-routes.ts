import { refundRequestSchema, refundSchema, type RefundView } from '#contracts/api-wallet.ts'
import { Problem } from '#contracts/codes.ts'
import { newId } from '#db/ids.ts'
import { getRefund, refund, type Refund, type RefundRequest, type RefundVerdict } from '#db/refund.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { z } from 'zod'
import { notFound, tenantFor } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'

export function refundRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/wallets/:id/refunds',
    {
      config: {
        access: 'operator',
        audit: 'refund.make',
        problems: [
          'invalid_amount',
          'reference_mismatch',
          'not_refundable',
          'wrong_currency',
          'wallet_short',
          'debt_outstanding',
          'not_found',
        ],
      },
      schema: {
        tags: ['Wallets'],
        summary: 'Pay direct money back',
        description:
          "The reference is unique within the project's refunds: the same refund again is answered with the first one.",
        params: z.object({ id: z.string() }),
        body: refundRequestSchema,
        response: { 200: refundSchema.describe('It was booked before.'), 201: refundSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: refundSchema }, async (trx) => {
        const walletId = request.params.id
        const scope = await tenantFor(trx, request, { noun: 'wallet', id: walletId })
        const { balanceClass, amount, reference } = request.body
        const parsed = parseDecimal(amount.amount)
        invariant(parsed.ok, 'the schema has checked the amount')
        const money = { balanceClass, currency: amount.currency, amount: parsed.nano }
        const asked = { id: newId(nowMs()), walletId, ...money, reference }
        const answer = await refund(trx, scope, asked)
        const body = refundView(await getRefund(trx, scope, bookedId(answer, asked)))
        return { status: answer.verdict === 'refunded' ? 201 : 200, body }
      }),
  )
}

/** The transfer that a refund is, now or since before. */
function bookedId({ verdict, transferId, free }: RefundVerdict, asked: RefundRequest): string {
  const { walletId, currency, reference } = asked
  switch (verdict) {
    case 'refunded':
    case 'replayed':
      invariant(transferId !== null, 'what is booked has a transfer')
      return transferId
    case 'unknown_wallet':
      throw notFound('wallet', walletId)
    case 'reference_mismatch':
      throw new Problem('reference_mismatch', `The reference ${reference} stands for another refund of this project.`, {
        remedy: 'Use the reference of this payment, or repeat the first refund with its own facts.',
      })
    case 'not_refundable':
      throw new Problem('not_refundable', 'Credit is not refundable.', {
        remedy: 'Refund direct money, or reverse the deposit that the credit came with.',
      })
    case 'wrong_currency':
      throw new Problem('wrong_currency', `The wallet has never had direct ${currency}.`, {
        remedy: 'Refund in a currency of the wallet.',
      })
    case 'debt_outstanding':
      throw new Problem('debt_outstanding', `The project owes in ${currency}.`, {
        remedy: 'Deposit first: a deposit pays the debt.',
      })
    case 'wallet_short':
      throw new Problem(
        'wallet_short',
        `The wallet has ${toAmount(free, currency).amount} ${currency} of direct money.`,
        {
          remedy: 'Refund less, or end what holds the rest in envelopes.',
          extra: { needed: toAmount(asked.amount, currency), free: toAmount(free, currency) },
        },
      )
    case 'invalid_amount':
    case 'invalid_reference':
      throw new Error(`the schema lets no ${verdict} through`)
  }
}

function refundView({ id, walletId, amount, currency, reference, recordedAt }: Refund): RefundView {
  return { id, walletId, amount: toAmount(amount, currency), reference, recordedAt: recordedAt.toISOString() }
}
