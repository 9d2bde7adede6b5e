import {
  depositListSchema,
  depositQuerySchema,
  depositRequestSchema,
  depositSchema,
  reversalRequestSchema,
  reversalSchema,
  type DepositRequestBody,
  type ReversalView,
} from '#contracts/api-wallet.ts'
import { depositRequestedSchema } from '#contracts/api-deposit-request.ts'
import { Problem } from '#contracts/codes.ts'
import { newId } from '#db/ids.ts'
import type { DepositRequest } from '#db/ledger.ts'
import { reverseDeposit, type ReversalVerdict } from '#db/reversal.ts'
import { findDeposit, getDeposit, listDeposits, type Deposit } from '#db/wallet.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantDb, tenantFor } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { bookOrAsk, depositView, requestedView } from './deposit-booking.ts'
import { answerPost } from './idempotency.ts'
import { isCount, pageAsked, pageFound } from './page.ts'
import { projectToList } from './run-read-routes.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Wallets']

export function depositRoutes(app: Api, { nowMs, approvalAbove }: RouteDeps): void {
  app.post(
    '/deposits',
    {
      config: {
        access: 'operator',
        audit: 'deposit.make',
        problems: ['invalid_amount', 'reference_mismatch', 'not_found', 'wrong_lot', 'lot_expired'],
      },
      schema: {
        tags,
        summary: 'Put money into a wallet',
        description:
          'The reference is unique within the project: the same deposit again is answered with the first one. One that is ' +
          'larger than an operator may make alone, by itself or with what operators of the organisation have booked alone ' +
          'within 24 hours, waits for another one: POST /deposit-requests/{id}/approve.',
        body: depositRequestSchema,
        response: {
          200: depositSchema.describe('It was booked before.'),
          201: depositSchema,
          202: depositRequestedSchema.describe('It waits for another operator.'),
        },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: z.union([depositSchema, depositRequestedSchema]) }, async (trx) => {
        const { walletId } = request.body
        const scope = await tenantFor(trx, request, { noun: 'wallet', id: walletId })
        const booking = await bookOrAsk(trx, scope, {
          deposit: depositRequest(request.body, nowMs()),
          askedBy: callerOfRequest(request).keyId,
          above: approvalAbove,
          nowMs: nowMs(),
        })
        return booking.kind === 'booked'
          ? { status: booking.isNew ? 201 : 200, body: depositView(booking.deposit) }
          : { status: 202, body: requestedView(booking.request) }
      }),
  )

  app.post(
    '/deposits/:id/reversal',
    {
      config: {
        access: 'operator',
        audit: 'deposit.reverse',
        problems: ['already_reversed', 'wallet_short', 'not_found'],
      },
      schema: {
        tags,
        summary: 'Take a whole deposit back, once',
        description:
          'Out of the wallet; of credit, out of the lot that the deposit made. What is not there any more is refused, or owed.',
        params: idParams,
        body: reversalRequestSchema,
        response: { 201: reversalSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: reversalSchema }, async (trx) => {
        const depositId = request.params.id
        const scope = await tenantFor(trx, request, { noun: 'deposit', id: depositId })
        const shortfall = request.body?.shortfall ?? 'refuse'
        const answer = await reverseDeposit(trx, scope, { id: newId(nowMs()), depositId, shortfall })
        if (answer.verdict === 'unknown_deposit') throw notFound('deposit', depositId)
        return { status: 201, body: reversalView(await getDeposit(trx, scope, depositId), answer) }
      }),
  )
}

export function depositReadRoutes(app: Api): void {
  app.get(
    '/deposits',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: "Deposits into a project's wallet, grants of credit among them",
        querystring: depositQuerySchema,
        response: { 200: depositListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId, balanceClass, from, to } = request.query
      const page = pageAsked(request, isCount)
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const found = await listDeposits(db, scope, { filter: { balanceClass, from, to }, page })
      const { items, nextCursor } = pageFound(request, found, ({ seq }) => seq)
      return { deposits: items.map(depositView), nextCursor }
    },
  )

  app.get(
    '/deposits/:id',
    {
      config: { access: 'any' },
      schema: { tags, summary: 'A deposit', params: idParams, response: { 200: depositSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const found = await findDeposit(db, await tenantFor(db, request, { noun: 'deposit', id }), id)
      if (!found) throw notFound('deposit', id)
      return depositView(found)
    },
  )
}

function reversalView(reversed: Deposit, reversal: ReversalVerdict): ReversalView {
  const { verdict, transferId, taken, expired, owed } = reversal
  const money = (nano: bigint) => toAmount(nano, reversed.currency)
  if (verdict === 'wallet_short') {
    throw new Problem('wallet_short', `Of the deposit ${money(taken).amount} ${reversed.currency} are still there.`, {
      remedy: 'Send "shortfall": "owe" to let the project owe the rest.',
      extra: { taken: money(taken), missing: money(owed) },
    })
  }
  if (verdict === 'already_reversed' || transferId === null) {
    throw new Problem('already_reversed', 'The deposit is reversed already.', { extra: { reversalId: transferId } })
  }
  return {
    id: transferId,
    depositId: reversed.id,
    amount: money(reversed.amount),
    taken: money(taken),
    expired: money(expired),
    owed: money(owed),
  }
}

function depositRequest(body: DepositRequestBody, nowMs: number): DepositRequest {
  const { walletId, balanceClass, amount, reference, lot } = body
  const parsed = parseDecimal(amount.amount)
  invariant(parsed.ok, 'the schema has checked the amount')
  return {
    id: newId(nowMs),
    walletId,
    balanceClass,
    currency: amount.currency,
    amount: parsed.nano,
    reference,
    lot: lot && { ...lot, expiresAt: lot.expiresAt === undefined ? null : new Date(lot.expiresAt) },
  }
}
