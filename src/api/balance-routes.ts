import {
  accountBalanceSchema,
  accountLedgerQuerySchema,
  asOfQuerySchema,
  walletBalancesSchema,
} from '#contracts/api-balance.ts'
import { ledgerSchema } from '#contracts/api-run.ts'
import { accountBalance, walletBalances } from '#db/balance.ts'
import { readAccountLedger } from '#db/run-ledger.ts'
import { toAmount } from '#domain/money.ts'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { instantFor } from './instant.ts'
import { isCount, pageAsked, pageFound } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Wallets']

/** What there was at an instant. */
export function balanceRoutes(app: Api): void {
  app.get(
    '/wallets/:id/balances',
    {
      config: { access: 'any', problems: ['invalid_instant'] },
      schema: {
        tags,
        summary: "A wallet's balances as of an instant",
        params: idParams,
        querystring: asOfQuerySchema,
        response: { 200: walletBalancesSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id: walletId } = request.params
      const scope = await tenantFor(db, request, { noun: 'wallet', id: walletId })
      const { at, final } = await instantFor(db, request.query.asOf)
      const balances = await walletBalances(db, scope, { walletId, at })
      return {
        walletId,
        asOf: at,
        final,
        balances: balances.map(({ accountId, balanceClass, currency, available, inEnvelopes }) => ({
          accountId,
          balanceClass,
          currency,
          available: toAmount(available, currency),
          inEnvelopes: toAmount(inEnvelopes, currency),
        })),
      }
    },
  )

  app.get(
    '/accounts/:id/balance',
    {
      config: { access: 'any', problems: ['invalid_instant'] },
      schema: {
        tags,
        summary: "An account's balance as of an instant",
        description:
          'Any account that a ledger entry names: a wallet’s, an envelope’s pocket, or a counterparty. ' +
          'Counterparties are folded from the journal, which takes longer the more there is to fold.',
        params: idParams,
        querystring: asOfQuerySchema,
        response: { 200: accountBalanceSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id: accountId } = request.params
      const scope = await tenantFor(db, request, { noun: 'account', id: accountId })
      const { at, final } = await instantFor(db, request.query.asOf)
      const audience = callerOfRequest(request).projectId === null ? 'operator' : 'customer'
      const found = await accountBalance(db, scope, { accountId, at, audience })
      if (!found) throw notFound('account', accountId)
      return {
        ...found,
        asOf: at,
        final,
        posted: toAmount(found.posted, found.currency),
        held: toAmount(found.held, found.currency),
        version: found.version?.toString() ?? null,
      }
    },
  )
}

/** What moved. */
export function accountLedgerRoutes(app: Api): void {
  app.get(
    '/accounts/:id/ledger',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: "The movements of a wallet's account or an envelope's pocket",
        description:
          'Whichever entry names it. `balanceAfter` and `heldAfter` are its own. The movements of counterparties are those ' +
          'of all other accounts, and are listed there.',
        params: idParams,
        querystring: accountLedgerQuerySchema,
        response: { 200: ledgerSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id: accountId } = request.params
      const { code, from, to } = request.query
      const page = pageAsked(request, isCount)
      const scope = await tenantFor(db, request, { noun: 'account', id: accountId })
      const found = await readAccountLedger(db, scope, { accountId, filter: { code, from, to }, page })
      if (!found) throw notFound('ledger of the account', accountId)
      const { items, nextCursor } = pageFound(request, found, ({ seq }) => seq)
      return { transfers: items.map(({ transfer }) => transfer), nextCursor }
    },
  )
}
