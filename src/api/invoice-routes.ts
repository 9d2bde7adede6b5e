import { invoiceRequestSchema, invoiceSchema, MAX_INVOICE_BYTES, type InvoiceView } from '#contracts/api-invoice.ts'
import { attemptsOfProvider, storeInvoice, type StoredInvoice } from '#db/invoice.ts'
import { parseInvoice, type InvoiceLine } from '#domain/invoice.ts'
import { InvoiceComparison, type InvoiceDifference } from '#domain/invoice-comparison.ts'
import { toAmount } from '#domain/money.ts'
import { callerOfRequest, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { faulty } from './validation.ts'

const MAX_DIFFERENCES = 1_000

export function invoiceRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/invoices',
    {
      bodyLimit: MAX_INVOICE_BYTES,
      config: { access: 'operator', audit: 'invoice.compare' },
      schema: {
        tags: ['Margins and invoices'],
        summary: "Compare a provider's invoice with what was booked",
        description:
          'Books nothing. The invoice is kept, and the same one again is told; it is compared anew, as truth may have come ' +
          'since.',
        body: invoiceRequestSchema,
        response: { 200: invoiceSchema },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const { provider, csv, ...period } = request.body
      const [from, to] = [new Date(period.from), new Date(period.to)]
      if (from >= to) throw faulty([{ path: 'to', message: 'is not after from' }])
      const { organisationId, keyId: apiKeyId } = callerOfRequest(request)
      const bill = { organisationId, provider, from, to }
      const comparison = new InvoiceComparison(linesOf(csv), { maxDifferences: MAX_DIFFERENCES })
      // Before the transaction that keeps the invoice: it reads long, in short statements.
      for await (const page of attemptsOfProvider(db, bill)) for (const attempt of page) comparison.look(attempt)
      comparison.finish()
      return answerPost({ request, reply, schema: invoiceSchema }, async (trx) => {
        const stored = await storeInvoice(trx, { ...bill, document: csv, apiKeyId, nowMs: nowMs() })
        const body = invoiceView(stored, comparison)
        const { differences: _, ...summary } = body
        return { status: 200, body, audit: { after: { provider, ...period, ...summary } } }
      })
    },
  )
}

function linesOf(csv: string): readonly InvoiceLine[] {
  const parsed = parseInvoice(csv)
  if (parsed.ok) return parsed.lines
  throw faulty(
    [{ path: 'csv', message: `line ${parsed.line} ${parsed.message}` }],
    'Its first line names the columns: request_id, model, amount, currency and, if it is known, tokens.',
  )
}

function invoiceView(stored: StoredInvoice, comparison: InvoiceComparison): InvoiceView {
  return {
    id: stored.id,
    digest: stored.digest,
    knownSince: stored.knownSince?.toISOString() ?? null,
    counts: { ...comparison.counts },
    totals: comparison.totals().map(({ currency, invoiced, booked }) => ({
      invoiced: toAmount(invoiced, currency),
      booked: toAmount(booked, currency),
      difference: toAmount(invoiced - booked, currency),
    })),
    differences: comparison.differences.map(differenceView),
  }
}

function differenceView({ status, invoiced, booked }: InvoiceDifference): InvoiceView['differences'][number] {
  return {
    status,
    line: invoiced?.line ?? null,
    requestId: invoiced?.requestId ?? null,
    callId: booked?.callId ?? null,
    attempt: booked?.attempt ?? null,
    invoiced: invoiced && toAmount(invoiced.amount, invoiced.currency),
    booked: booked && toAmount(booked.cost, booked.currency),
    invoicedModel: invoiced?.model ?? null,
    bookedModel: booked?.upstreamModel ?? null,
    invoicedTokens: invoiced?.tokens?.toString() ?? null,
    bookedTokens: booked?.tokens?.toString() ?? null,
  }
}
