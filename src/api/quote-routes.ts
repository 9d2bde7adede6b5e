import {
  quoteListSchema,
  quoteQuerySchema,
  quoteRequestSchema,
  quoteSchema,
  type QuoteView,
} from '#contracts/api-wallet.ts'
import { createQuote, listQuotes, type Quote } from '#db/quote.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { callerOfRequest, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'
import { faulty } from './validation.ts'

const tags = ['Quotes']

export function quoteRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/quotes',
    {
      config: { access: 'operator', audit: 'quote.store', problems: ['invalid_amount'] },
      schema: {
        tags,
        summary: 'Store an exchange rate',
        description:
          'For envelopes that are funded from now on: the newest rate that has begun and not expired is in force. ' +
          'What comes back from an envelope uses the rate it was funded with. A quote never changes.',
        body: quoteRequestSchema,
        response: { 201: quoteSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: quoteSchema }, async (trx) => {
        const { sell, buy, source, effectiveAt, expiresAt } = request.body
        if (sell.currency === buy.currency)
          throw faulty([{ path: 'buy.currency', message: 'is the currency that is sold' }])
        const times = { effectiveAt: dateOf(effectiveAt), expiresAt: dateOf(expiresAt) }
        if (times.expiresAt && times.expiresAt.getTime() <= Math.max(nowMs(), times.effectiveAt?.getTime() ?? 0)) {
          throw faulty([{ path: 'expiresAt', message: 'is not after now and after effectiveAt' }])
        }
        const quote = await createQuote(trx, callerOfRequest(request).organisationId, {
          sellCurrency: sell.currency,
          sell: nanoOf(sell.amount),
          buyCurrency: buy.currency,
          buy: nanoOf(buy.amount),
          source,
          ...times,
          nowMs: nowMs(),
        })
        return { status: 201, body: quoteView(quote) }
      }),
  )

  app.get(
    '/quotes',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Exchange rates, newest first',
        querystring: quoteQuerySchema,
        response: { 200: quoteListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { from, to } = request.query
      const { organisationId } = callerOfRequest(request)
      const found = await listQuotes(db, organisationId, { ...pageAsked(request), from, to })
      const { items, nextCursor } = pageOf(request, found)
      return { quotes: items.map(quoteView), nextCursor }
    },
  )
}

function dateOf(text: string | undefined): Date | null {
  return text === undefined ? null : new Date(text)
}

function nanoOf(amount: string): bigint {
  const parsed = parseDecimal(amount)
  invariant(parsed.ok, 'the schema has checked the amount')
  return parsed.nano
}

function quoteView({ id, sell, sellCurrency, buy, buyCurrency, source, effectiveAt, expiresAt }: Quote): QuoteView {
  return {
    id,
    sell: toAmount(sell, sellCurrency),
    buy: toAmount(buy, buyCurrency),
    source,
    effectiveAt: effectiveAt.toISOString(),
    expiresAt: expiresAt?.toISOString() ?? null,
  }
}
