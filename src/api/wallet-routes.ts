import {
  depositRequestSchema,
  depositSchema,
  walletSchema,
  type DepositView,
  type WalletView,
} from '#contracts/api-project.ts'
import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import type { Database } from '#db/schema.ts'
import { balancesOf, createWallet, debtsOf, getDeposit, getWallet, type Deposit, type Wallet } from '#db/wallet.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { notFound, tenantFor } from './access.ts'
import type { Api, ApiDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'

const idParams = z.object({ id: z.string() })
const noBody = z.strictObject({}).nullish()
const tags = ['Wallets']

export function walletRoutes(app: Api, deps: ApiDeps): void {
  const { db, nowMs } = deps

  app.post(
    '/projects/:id/wallet',
    {
      config: { access: 'operator', problems: ['already_exists'] },
      schema: {
        tags,
        summary: "Make a project's wallet",
        params: idParams,
        body: noBody,
        response: { 201: walletSchema },
      },
    },
    (request, reply) =>
      answerPost(db, { request, reply, schema: walletSchema }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'project', id: request.params.id })
        const wallet = await createWallet(trx, scope, nowMs())
        if (!wallet) throw new Problem('already_exists', 'The project has a wallet already.')
        return { status: 201, body: await walletView(trx, scope, wallet) }
      }),
  )

  app.get(
    '/projects/:id/wallet',
    {
      config: { access: 'any' },
      schema: { tags, summary: "A project's money", params: idParams, response: { 200: walletSchema } },
    },
    async (request) => {
      const scope = await tenantFor(db, request, { noun: 'project', id: request.params.id })
      const wallet = await getWallet(db, scope)
      if (!wallet) throw new Problem('not_found', 'The project has no wallet.', { remedy: 'An operator can make one.' })
      return walletView(db, scope, wallet)
    },
  )

  app.post(
    '/deposits',
    {
      config: { access: 'operator', problems: ['invalid_amount', 'reference_mismatch', 'not_found'] },
      schema: {
        tags,
        summary: 'Put money into a wallet',
        description:
          'The reference is unique within the project: the same deposit again is answered with the first one.',
        body: depositRequestSchema,
        response: { 200: depositSchema.describe('It was booked before.'), 201: depositSchema },
      },
    },
    (request, reply) =>
      answerPost(db, { request, reply, schema: depositSchema }, async (trx) => {
        const { walletId, balanceClass, amount, reference } = request.body
        const scope = await tenantFor(trx, request, { noun: 'wallet', id: walletId })
        const parsed = parseDecimal(amount.amount)
        invariant(parsed.ok, 'the schema has checked the amount')
        const money = { currency: amount.currency, amount: parsed.nano }
        const id = newId(nowMs())
        const { verdict, transferId } = await deposit(trx, scope, { id, walletId, balanceClass, ...money, reference })
        if (verdict === 'reference_mismatch') throw mismatch(reference)
        if (transferId === null) throw notFound('wallet', walletId)
        const body = depositView(await getDeposit(trx, scope, transferId))
        return { status: verdict === 'deposited' ? 201 : 200, body }
      }),
  )
}

function mismatch(reference: string): Problem {
  return new Problem('reference_mismatch', `The reference ${reference} stands for another deposit of this project.`, {
    remedy: 'Use the reference of this payment, or repeat the first deposit with its own facts.',
  })
}

async function walletView(db: Kysely<Database>, scope: Scope, wallet: Wallet): Promise<WalletView> {
  const balances = await balancesOf(db, scope)
  const debts = await debtsOf(db, scope)
  return {
    id: wallet.id,
    projectId: scope.projectId,
    createdAt: wallet.createdAt.toISOString(),
    balances: balances.map(({ balanceClass, currency, available, inEnvelopes }) => ({
      balanceClass,
      currency,
      available: toAmount(available, currency),
      inEnvelopes: toAmount(inEnvelopes, currency),
    })),
    debts: debts.map(({ amount, currency }) => toAmount(amount, currency)),
  }
}

function depositView(booked: Deposit): DepositView {
  return {
    id: booked.id,
    walletId: booked.walletId,
    balanceClass: booked.balanceClass,
    amount: toAmount(booked.amount, booked.currency),
    reference: booked.reference,
    debtPaid: toAmount(booked.debtPaid, booked.currency),
    recordedAt: booked.recordedAt.toISOString(),
  }
}
