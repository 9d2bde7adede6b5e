import type { StatementMovementView, StatementView } from '#contracts/statement.ts'
import type { StatementDebt } from '#db/statement-debt.ts'
import type { StatementEnvelope } from '#db/statement-envelope.ts'
import type { StatementMovement } from '#db/statement-movement.ts'
import type { StatementSpend } from '#db/statement-spend.ts'
import { paidByPocket, type StatementBalance, type StatementPart } from '#db/statement.ts'
import { toAmount } from '#domain/money.ts'

/** What stands above a statement's figures. */
export type StatementHead = Omit<StatementView, 'balances' | 'debts' | 'envelopes' | 'end'>

type BalanceView = StatementView['balances'][number]

/** A statement as one JSON document, written piece by piece. Its last word is `"end":true`. */
export async function* statementJson(head: StatementHead, parts: AsyncIterable<StatementPart>): AsyncGenerator<string> {
  yield `${JSON.stringify(head).slice(0, -1)},"balances":[`
  const isFirst = firstOf()
  let section: 'balances' | 'envelopes' = 'balances'
  for await (const part of parts) {
    switch (part.kind) {
      case 'balance':
        yield `${comma(isFirst('balance'))}${JSON.stringify(balanceView(part.balance)).slice(0, -1)},"movements":[`
        isFirst.again('movement')
        break
      case 'movements':
        for (const movement of part.movements) {
          yield comma(isFirst('movement')) + JSON.stringify(movementView(movement, part.balance))
        }
        break
      case 'balance_end':
        yield `],"totals":${JSON.stringify(totalsView(part))}}`
        break
      case 'debts':
        yield `],"debts":${JSON.stringify(part.debts.map(debtView))},"envelopes":[`
        section = 'envelopes'
        break
      case 'envelopes':
        for (const each of part.envelopes) yield comma(isFirst('envelope')) + JSON.stringify(envelopeView(each))
        break
      case 'end':
        yield '],"end":true}\n'
        return
    }
  }
  throw new Error(`the statement ended among its ${section}`)
}

/** Whether something is the first of its list. */
function firstOf() {
  const begun = new Set<string>()
  const isFirst = (list: string) => !begun.has(list) && begun.add(list).size > 0
  return Object.assign(isFirst, { again: (list: string) => void begun.delete(list) })
}

function comma(isFirst: boolean): string {
  return isFirst ? '' : ','
}

function balanceView(balance: StatementBalance): Omit<BalanceView, 'movements' | 'totals'> {
  const { accountId, balanceClass, currency, opening, closing, openingInEnvelopes, closingInEnvelopes } = balance
  const money = (nano: bigint) => toAmount(nano, currency)
  return {
    accountId,
    balanceClass,
    currency,
    opening: money(opening),
    closing: money(closing),
    inEnvelopes: { opening: money(openingInEnvelopes), closing: money(closingInEnvelopes) },
  }
}

function totalsView({ balance, totals }: Extract<StatementPart, { kind: 'balance_end' }>): BalanceView['totals'] {
  const money = (nano: bigint) => toAmount(nano, balance.currency)
  return totals.map((total) => ({ ...total, in: money(total.in), out: money(total.out) }))
}

function movementView(movement: StatementMovement, { currency }: StatementBalance): StatementMovementView {
  const { id, recordedAt, code, amount, balance, counterparty, reference, reverses, model, certainty, use } = movement
  return {
    id,
    recordedAt,
    code,
    amount: toAmount(amount, currency),
    balance: toAmount(balance, currency),
    counterparty,
    reference,
    reverses,
    ...provenanceView(movement),
    ...ownerView(movement),
    model,
    certainty,
    use,
  }
}

function provenanceView(movement: StatementMovement): Pick<StatementMovementView, 'lot' | 'quote'> {
  const { lotId, lotSource, lotExpiresAt, quoteId, quoteSource, sellCurrency, sell, buyCurrency, buy } = movement
  const lot = lotId !== null && { id: lotId, source: lotSource ?? '', expiresAt: lotExpiresAt?.toISOString() ?? null }
  const quote = quoteId !== null && {
    id: quoteId,
    source: quoteSource ?? '',
    sell: toAmount(sell ?? 0n, sellCurrency ?? ''),
    buy: toAmount(buy ?? 0n, buyCurrency ?? ''),
  }
  return { lot: lot || null, quote: quote || null }
}

function ownerView(movement: StatementMovement): Pick<StatementMovementView, 'envelope' | 'run' | 'apiKey' | 'call'> {
  const { envelopeId, envelopeKind, runId, agent, apiKeyId, apiKeyName, callId, attempt } = movement
  return {
    envelope: envelopeId === null ? null : { id: envelopeId, kind: envelopeKind ?? '' },
    run: runId === null ? null : { id: runId, agent: agent ?? '' },
    apiKey: apiKeyId === null ? null : { id: apiKeyId, name: apiKeyName ?? '' },
    call: callId === null ? null : { id: callId, attempt },
  }
}

function debtView(debt: StatementDebt) {
  const money = (nano: bigint) => toAmount(nano, debt.currency)
  return {
    ...debt,
    opening: money(debt.opening),
    changes: debt.changes.map((change) => ({ ...change, amount: money(change.amount) })),
    closing: money(debt.closing),
  }
}

function envelopeView(envelope: StatementEnvelope) {
  const { envelopeId, kind, parentId, runId, agent, model, apiKeyId, apiKeyName, createdAt, closedAt } = envelope
  return {
    id: envelopeId,
    kind,
    parentId,
    run: runId === null ? null : { id: runId, agent, model },
    apiKey: apiKeyId === null ? null : { id: apiKeyId, name: apiKeyName ?? '' },
    createdAt: createdAt.toISOString(),
    closedAt: closedAt?.toISOString() ?? null,
    pockets: envelope.pockets.map(pocketView),
  } satisfies StatementView['envelopes'][number]
}

function pocketView(pocket: StatementEnvelope['pockets'][number]) {
  const { accountId, balanceClass, currency, opening, closing, heldAtClosing, changes, spends } = pocket
  const money = (nano: bigint) => toAmount(nano, currency)
  return {
    accountId,
    balanceClass,
    currency,
    opening: money(opening),
    closing: money(closing),
    heldAtClosing: money(heldAtClosing),
    changes: changes.map(({ code, amount, count }) => ({ code, amount: money(amount), count })),
    paid: money(paidByPocket(pocket)),
    spends: spends.map((spend) => spendView(spend, money)),
  }
}

function spendView(spend: StatementSpend, money: (nano: bigint) => ReturnType<typeof toAmount>) {
  const { model, provider, upstreamModel, route, attempts } = spend
  return {
    model,
    provider,
    upstreamModel,
    route,
    attempts,
    captured: money(spend.captured),
    overage: money(spend.overage),
    corrected: money(spend.corrected),
    charged: money(spend.charged),
    useful: money(spend.useful),
    wasted: money(spend.wasted),
    billed: money(spend.billed),
    estimated: money(spend.estimated),
    unknown: money(spend.unknown),
    onDebt: money(spend.onDebt),
    fromWallet: money(spend.fromWallet),
  }
}
