import type { TransferCode } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import type { Kysely } from 'kysely'
import { walletBalances, type WalletBalance } from './balance.ts'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'
import { debtsOver, type StatementDebt } from './statement-debt.ts'
import { envelopesOf, type StatementEnvelope } from './statement-envelope.ts'
import { movementsOf, type StatementMovement } from './statement-movement.ts'
import type { StatementPeriod } from './statement-period.ts'

/** One balance of the wallet over a period, in nano. */
export interface StatementBalance {
  /** Null when only envelopes have money of this kind, from an exchange. */
  readonly accountId: string | null
  readonly balanceClass: WalletBalance['balanceClass']
  readonly currency: string
  readonly opening: bigint
  readonly closing: bigint
  readonly openingInEnvelopes: bigint
  readonly closingInEnvelopes: bigint
}

/** What came in and went out by one kind of movement. */
export interface StatementTotal {
  readonly code: TransferCode
  readonly in: bigint
  readonly out: bigint
  readonly count: number
}

/**
 * A statement in parts, in this order: each balance with its movements and its end, the debts, the envelopes, the end.
 * Whoever has not got the end has not got the whole.
 */
export type StatementPart =
  | { readonly kind: 'balance'; readonly balance: StatementBalance }
  | { readonly kind: 'movements'; readonly balance: StatementBalance; readonly movements: readonly StatementMovement[] }
  | { readonly kind: 'balance_end'; readonly balance: StatementBalance; readonly totals: readonly StatementTotal[] }
  | { readonly kind: 'debts'; readonly debts: readonly StatementDebt[] }
  | { readonly kind: 'envelopes'; readonly envelopes: readonly StatementEnvelope[] }
  | { readonly kind: 'end' }

/**
 * Everything that moved in a wallet and its envelopes in a period, read in many short statements: no snapshot is held
 * over them. It does not change between them, because each account's movements are bounded when it begins.
 *
 * @throws when a balance and its movements do not add up: a statement that is wrong must not end well
 */
export async function* readStatement(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly walletId: string; readonly period: StatementPeriod },
): AsyncGenerator<StatementPart> {
  const { walletId, period } = request
  const opening = await walletBalances(db, scope, { walletId, at: period.openedAt })
  const closing = await walletBalances(db, scope, { walletId, at: period.closedAt })
  const gone = opening.filter((begin) => !closing.some((end) => isSameMoney(begin, end)))
  for (const end of [...closing, ...gone.map((each) => ({ ...each, inEnvelopes: 0n }))]) {
    const begin = opening.find((each) => isSameMoney(each, end))
    const balance = balanceOf(begin, end)
    yield { kind: 'balance', balance }
    yield* movementParts(db, { balance, openingSeq: begin?.seq ?? 0n, closingSeq: end.seq })
  }
  yield { kind: 'debts', debts: await debtsOver(db, scope, period) }
  for await (const envelopes of envelopesOf(db, scope, period)) {
    for (const envelope of envelopes) for (const pocket of envelope.pockets) checkPocket(pocket)
    yield { kind: 'envelopes', envelopes }
  }
  yield { kind: 'end' }
}

function isSameMoney(left: WalletBalance, right: WalletBalance): boolean {
  return left.balanceClass === right.balanceClass && left.currency === right.currency
}

function balanceOf(begin: WalletBalance | undefined, end: WalletBalance): StatementBalance {
  return {
    accountId: end.accountId,
    balanceClass: end.balanceClass,
    currency: end.currency,
    opening: begin?.available ?? 0n,
    closing: end.available,
    openingInEnvelopes: begin?.inEnvelopes ?? 0n,
    closingInEnvelopes: end.inEnvelopes,
  }
}

async function* movementParts(
  db: Kysely<Database>,
  {
    balance,
    ...window
  }: { readonly balance: StatementBalance; readonly openingSeq: bigint; readonly closingSeq: bigint },
): AsyncGenerator<StatementPart> {
  const { accountId, balanceClass, currency } = balance
  const totals = new Map<string, StatementTotal>()
  let running = balance.opening
  if (accountId !== null) {
    for await (const movements of movementsOf(db, { accountId, balanceClass, currency, ...window })) {
      for (const movement of movements) {
        running += movement.amount
        invariant(running === movement.balance, `movement ${movement.id} leaves another balance than the one before it`)
        addTotal(totals, movement)
      }
      yield { kind: 'movements', balance, movements }
    }
  }
  invariant(running === balance.closing, `the movements of account ${accountId} do not lead to its closing balance`)
  yield { kind: 'balance_end', balance, totals: [...totals.values()] }
}

function addTotal(totals: Map<string, StatementTotal>, { code, amount }: StatementMovement): void {
  const known = totals.get(code) ?? { code, in: 0n, out: 0n, count: 0 }
  totals.set(code, {
    code,
    in: known.in + (amount > 0n ? amount : 0n),
    out: known.out - (amount < 0n ? amount : 0n),
    count: known.count + 1,
  })
}

/** What the pocket itself paid: the rest is owed, or came from the wallet after the close. */
export function paidByPocket(pocket: StatementEnvelope['pockets'][number]): bigint {
  return pocket.spends.reduce((sum, spend) => sum + spend.charged - spend.onDebt - spend.fromWallet, 0n)
}

function checkPocket(pocket: StatementEnvelope['pockets'][number]): void {
  const changed = pocket.changes.reduce((sum, change) => sum + change.amount, 0n)
  invariant(
    pocket.opening + changed - paidByPocket(pocket) === pocket.closing,
    `what pocket ${pocket.accountId} got, gave and spent does not lead to its closing balance`,
  )
}
