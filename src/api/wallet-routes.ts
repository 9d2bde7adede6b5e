import { lotListSchema, lotQuerySchema, walletSchema, type LotView, type WalletView } from '#contracts/api-wallet.ts'
import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import { listLots, type Lot } from '#db/lot.ts'
import type { Database } from '#db/schema.ts'
import { balancesOf, createWallet, debtsOf, getWallet, type Wallet } from '#db/wallet.ts'
import { toAmount } from '#domain/money.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'

const idParams = z.object({ id: z.string() })
const noBody = z.strictObject({}).nullish()
const tags = ['Wallets']

export function walletRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs } = deps

  app.post(
    '/projects/:id/wallet',
    {
      config: { access: 'operator', audit: 'wallet.create', problems: ['already_exists'] },
      schema: {
        tags,
        summary: "Make a project's wallet",
        params: idParams,
        body: noBody,
        response: { 201: walletSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: walletSchema }, async (trx) => {
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
      const db = tenantDb(request)
      const scope = await tenantFor(db, request, { noun: 'project', id: request.params.id })
      const wallet = await getWallet(db, scope)
      if (!wallet) throw new Problem('not_found', 'The project has no wallet.', { remedy: 'An operator can make one.' })
      return walletView(db, scope, wallet)
    },
  )

  app.get(
    '/wallets/:id/lots',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: "A wallet's lots of credit, newest first",
        params: idParams,
        querystring: lotQuerySchema,
        response: { 200: lotListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const scope = await tenantFor(db, request, { noun: 'wallet', id: request.params.id })
      const { from, to } = request.query
      const { items, nextCursor } = pageOf(request, await listLots(db, scope, { ...pageAsked(request), from, to }))
      return { lots: items.map(lotView), nextCursor }
    },
  )
}

async function walletView(db: Kysely<Database>, scope: Scope, wallet: Wallet): Promise<WalletView> {
  const balances = await balancesOf(db, scope)
  const debts = await debtsOf(db, scope)
  return {
    id: wallet.id,
    projectId: scope.projectId,
    createdAt: wallet.createdAt.toISOString(),
    balances: balances.map(({ balanceClass, currency, available, inLots, inEnvelopes }) => ({
      balanceClass,
      currency,
      available: toAmount(available, currency),
      inLots: inLots === null ? null : toAmount(inLots, currency),
      inEnvelopes: toAmount(inEnvelopes, currency),
    })),
    debts: debts.map(({ amount, currency }) => toAmount(amount, currency)),
  }
}

function lotView(lot: Lot): LotView {
  const { id, source, priority, expiresAt, free, currency, createdAt } = lot
  return {
    id,
    source,
    priority,
    expiresAt: expiresAt?.toISOString() ?? null,
    free: toAmount(free, currency),
    createdAt: createdAt.toISOString(),
  }
}
