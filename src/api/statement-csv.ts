import type { StatementEnvelope } from '#db/statement-envelope.ts'
import type { StatementMovement } from '#db/statement-movement.ts'
import type { StatementSpend } from '#db/statement-spend.ts'
import type { StatementBalance, StatementPart } from '#db/statement.ts'
import { csvLine, csvText } from '#domain/csv.ts'
import { formatNano } from '#domain/money.ts'
import type { StatementHead } from './statement-json.ts'

/** The columns, in this order for ever: new ones are added at the end. */
const COLUMNS = [
  'row',
  'recorded_at',
  'account_id',
  'balance_class',
  'currency',
  'code',
  'amount',
  'balance',
  'counterparty',
  'reference',
  'envelope_id',
  'envelope_kind',
  'run_id',
  'agent',
  'api_key_id',
  'api_key',
  'model',
  'provider',
  'upstream_model',
  'route',
  'count',
  'captured',
  'overage',
  'corrected',
  'charged',
  'useful',
  'wasted',
  'billed',
  'estimated',
  'unknown',
  'on_debt',
  'from_wallet',
  'certainty',
  'use',
  'lot_id',
  'lot_source',
  'lot_expires_at',
  'quote_id',
  'quote',
  'quote_source',
  'call_id',
  'attempt',
  'transfer_id',
  'reverses',
] as const

type Column = (typeof COLUMNS)[number]

/** What other people wrote: it must not run in a spreadsheet. */
const TEXTS: ReadonlySet<Column> = new Set<Column>([
  'reference',
  'agent',
  'api_key',
  'model',
  'provider',
  'upstream_model',
  'route',
  'lot_source',
  'quote',
  'quote_source',
])

type Row = Partial<Record<Column, string | null>>

/**
 * A statement as CSV (RFC 4180). For each account, wallet or pocket or debt: the balance of its opening row plus the
 * amounts of all its rows is the balance of its closing row. The last row is `end`, with how many rows stand above it.
 */
export async function* statementCsv(head: StatementHead, parts: AsyncIterable<StatementPart>): AsyncGenerator<string> {
  let rows = 0
  yield csvLine(COLUMNS)
  for await (const part of parts) {
    if (part.kind === 'end') {
      const code = head.final ? 'final' : 'provisional'
      yield lineOf({ row: 'end', recorded_at: head.writtenAt, code, count: String(rows) })
      return
    }
    const lines = rowsOf(part, head).map(lineOf)
    rows += lines.length
    if (lines.length > 0) yield lines.join('')
  }
  throw new Error('the statement ended before its end')
}

function rowsOf(part: Exclude<StatementPart, { kind: 'end' }>, head: StatementHead): readonly Row[] {
  switch (part.kind) {
    case 'balance':
      return part.balance.accountId === null ? [] : [balanceRow('opening', part.balance, head)]
    case 'movements':
      return part.movements.map((movement) => movementRow(movement, part.balance))
    case 'balance_end':
      return part.balance.accountId === null ? [] : [balanceRow('closing', part.balance, head)]
    case 'debts':
      return part.debts.flatMap((debt) => {
        const own = { account_id: debt.accountId, currency: debt.currency }
        return [
          { row: 'debt_opening', recorded_at: head.from, ...own, balance: formatNano(debt.opening) },
          ...debt.changes.map(({ code, amount, count }) => ({
            row: 'debt',
            ...own,
            code,
            amount: formatNano(amount),
            count: String(count),
          })),
          { row: 'debt_closing', recorded_at: head.to, ...own, balance: formatNano(debt.closing) },
        ]
      })
    case 'envelopes':
      return part.envelopes.flatMap((envelope) =>
        envelope.pockets.flatMap((pocket) => pocketRows(envelope, pocket, head)),
      )
  }
}

function balanceRow(row: 'opening' | 'closing', balance: StatementBalance, head: StatementHead): Row {
  return {
    row,
    recorded_at: row === 'opening' ? head.from : head.to,
    account_id: balance.accountId,
    balance_class: balance.balanceClass,
    currency: balance.currency,
    balance: formatNano(balance[row]),
  }
}

function movementRow(movement: StatementMovement, balance: StatementBalance): Row {
  const { sell, sellCurrency, buy, buyCurrency } = movement
  const hasQuote = sell !== null && buy !== null
  return {
    row: 'movement',
    recorded_at: movement.recordedAt,
    account_id: balance.accountId,
    balance_class: balance.balanceClass,
    currency: balance.currency,
    code: movement.code,
    amount: formatNano(movement.amount),
    balance: formatNano(movement.balance),
    counterparty: movement.counterparty,
    reference: movement.reference,
    envelope_id: movement.envelopeId,
    envelope_kind: movement.envelopeKind,
    run_id: movement.runId,
    agent: movement.agent,
    api_key_id: movement.apiKeyId,
    api_key: movement.apiKeyName,
    model: movement.model,
    certainty: movement.certainty,
    use: movement.use,
    lot_id: movement.lotId,
    lot_source: movement.lotSource,
    lot_expires_at: movement.lotExpiresAt?.toISOString() ?? null,
    quote_id: movement.quoteId,
    quote: hasQuote ? `${formatNano(sell)} ${sellCurrency} = ${formatNano(buy)} ${buyCurrency}` : null,
    quote_source: movement.quoteSource,
    call_id: movement.callId,
    attempt: movement.attempt?.toString() ?? null,
    transfer_id: movement.id,
    reverses: movement.reverses,
  }
}

function pocketRows(
  envelope: StatementEnvelope,
  pocket: StatementEnvelope['pockets'][number],
  head: StatementHead,
): readonly Row[] {
  const own: Row = {
    account_id: pocket.accountId,
    balance_class: pocket.balanceClass,
    currency: pocket.currency,
    envelope_id: envelope.envelopeId,
    envelope_kind: envelope.kind,
    run_id: envelope.runId,
    agent: envelope.agent,
    api_key_id: envelope.apiKeyId,
    api_key: envelope.apiKeyName,
  }
  return [
    { ...own, row: 'pocket_opening', recorded_at: head.from, balance: formatNano(pocket.opening) },
    ...pocket.changes.map(({ code, amount, count }) => ({
      ...own,
      row: 'pocket',
      code,
      amount: formatNano(amount),
      count: String(count),
    })),
    ...pocket.spends.map((spend) => ({ ...own, ...spendRow(spend) })),
    { ...own, row: 'pocket_closing', recorded_at: head.to, balance: formatNano(pocket.closing) },
  ]
}

function spendRow(spend: StatementSpend): Row {
  return {
    row: 'spend',
    amount: formatNano(spend.onDebt + spend.fromWallet - spend.charged),
    model: spend.model,
    provider: spend.provider,
    upstream_model: spend.upstreamModel,
    route: spend.route,
    count: String(spend.attempts),
    captured: formatNano(spend.captured),
    overage: formatNano(spend.overage),
    corrected: formatNano(spend.corrected),
    charged: formatNano(spend.charged),
    useful: formatNano(spend.useful),
    wasted: formatNano(spend.wasted),
    billed: formatNano(spend.billed),
    estimated: formatNano(spend.estimated),
    unknown: formatNano(spend.unknown),
    on_debt: formatNano(spend.onDebt),
    from_wallet: formatNano(spend.fromWallet),
  }
}

function lineOf(row: Row): string {
  return csvLine(COLUMNS.map((column) => (TEXTS.has(column) ? csvText(row[column] ?? null) : (row[column] ?? ''))))
}
