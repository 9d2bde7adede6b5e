import type { DepositRequestedView } from '#contracts/api-deposit-request.ts'
import type { DepositView } from '#contracts/api-wallet.ts'
import { Problem } from '#contracts/codes.ts'
import { lotTermsSchema } from '#contracts/stored.ts'
import type { Scope } from '#db/database.ts'
import { requestDeposit, waitingReason, type RequestedDeposit } from '#db/deposit-request.ts'
import { deposit, type DepositRequest, type DepositVerdict } from '#db/ledger.ts'
import { countLoneDeposit, lockLoneDeposits, loneDepositsOfDay } from '#db/lone-deposit.ts'
import type { Database } from '#db/schema.ts'
import { getDeposit, isBooked, type Deposit } from '#db/wallet.ts'
import { invariant } from '#domain/invariant.ts'
import { formatNano, toAmount, type Nano } from '#domain/money.ts'
import type { Transaction } from 'kysely'
import { notFound } from './access.ts'

/**
 * Above how much a deposit waits for another operator, in nano by currency: by itself, and what operators of an organisation
 * book alone within 24 hours. Without any, none does.
 */
export type ApprovalAbove = ReadonlyMap<string, Nano>

export type Booking =
  | { readonly kind: 'booked'; readonly isNew: boolean; readonly deposit: Deposit }
  | { readonly kind: 'requested'; readonly isNew: boolean; readonly request: RequestedDeposit }

/**
 * Books a deposit, or has it wait when it is more than one operator may make alone. A currency that has no bound while
 * others have one is bound to nothing: it always waits. What has waited once is never booked by being sent again.
 *
 * @param askedBy the operator's key; null for a payment provider
 * @throws Problem when it cannot be booked
 */
export async function bookOrAsk(
  trx: Transaction<Database>,
  scope: Scope,
  asked: {
    readonly deposit: DepositRequest
    readonly askedBy: string | null
    readonly above: ApprovalAbove
    readonly nowMs: number
  },
): Promise<Booking> {
  const { deposit: facts, above } = asked
  if (above.size === 0) return bookDeposit(trx, scope, facts)
  const bound = above.get(facts.currency) ?? 0n
  // A payment provider's payments are each somebody else's: they are not added up.
  const isAlone = asked.askedBy !== null && facts.amount <= bound
  const organisationId = isAlone ? await lockLoneDeposits(trx, scope, facts.currency) : undefined
  if (await isBooked(trx, scope, facts.reference)) return bookDeposit(trx, scope, facts)
  const reason =
    (await waitingReason(trx, scope, facts.reference)) ?? (await reasonToWait(trx, { facts, bound, organisationId }))
  if (reason !== undefined) {
    const asking = await requestDeposit(trx, scope, { ...asked, reason })
    if (!asking) throw mismatch(facts.reference)
    return { kind: 'requested', ...asking }
  }
  const booking = await bookDeposit(trx, scope, facts)
  if (organisationId !== undefined && booking.isNew) {
    const { id, currency, amount } = booking.deposit
    await countLoneDeposit(trx, organisationId, { id, currency, amount })
  }
  return booking
}

/** Undefined for what may be booked. @param judged `organisationId`: of an operator's own deposit; it is locked */
async function reasonToWait(
  trx: Transaction<Database>,
  judged: {
    readonly facts: DepositRequest
    readonly bound: Nano
    readonly organisationId: string | undefined
  },
): Promise<RequestedDeposit['reason'] | undefined> {
  const { facts, bound, organisationId } = judged
  if (facts.amount > bound) return 'amount'
  if (organisationId === undefined) return undefined
  const already = await loneDepositsOfDay(trx, organisationId, facts.currency)
  return already + facts.amount > bound ? 'day' : undefined
}

/** @throws Problem when it cannot be booked */
export async function bookDeposit(
  trx: Transaction<Database>,
  scope: Scope,
  facts: DepositRequest,
): Promise<Extract<Booking, { kind: 'booked' }>> {
  const answer = await deposit(trx, scope, facts)
  const booked = await getDeposit(trx, scope, bookedId(answer, facts))
  return { kind: 'booked', isNew: answer.verdict === 'deposited', deposit: booked }
}

/** A request as the deposit that it becomes. */
export function depositOf(request: RequestedDeposit, id: string): DepositRequest {
  const { walletId, balanceClass, currency, amount, reference } = request
  const lot = lotTermsSchema.parse(request.lot) ?? undefined
  return { id, walletId, balanceClass, currency, amount, reference, lot }
}

export function depositView(booked: Deposit): DepositView {
  return {
    id: booked.id,
    walletId: booked.walletId,
    balanceClass: booked.balanceClass,
    amount: toAmount(booked.amount, booked.currency),
    reference: booked.reference,
    lotId: booked.lotId,
    debtPaid: toAmount(booked.debtPaid, booked.currency),
    recordedAt: booked.recordedAt.toISOString(),
  }
}

export function requestedView(request: RequestedDeposit): DepositRequestedView {
  const { amount, currency, decidedAt, createdAt, lot: _lot, ...rest } = request
  return {
    ...rest,
    amount: { amount: formatNano(amount), currency },
    decidedAt: decidedAt?.toISOString() ?? null,
    createdAt: createdAt.toISOString(),
  }
}

/** The transfer that a deposit is, now or since before. */
function bookedId({ verdict, transferId }: DepositVerdict, { walletId, reference }: DepositRequest): string {
  switch (verdict) {
    case 'deposited':
    case 'replayed':
      invariant(transferId !== null, 'what is booked has a transfer')
      return transferId
    case 'unknown_wallet':
      throw notFound('wallet', walletId)
    case 'reference_mismatch':
      throw mismatch(reference)
    case 'wrong_lot':
      throw new Problem('wrong_lot', 'Only credit is kept in lots, and the source `opening` is reserved.', {
        remedy: 'Leave the lot out, or name another source.',
      })
    case 'lot_expired':
      throw new Problem('lot_expired', 'The lot would be expired from the start.', {
        remedy: 'Send an expiresAt that is still to come.',
      })
    case 'invalid_amount':
    case 'invalid_reference':
    case 'wrong_currency':
      throw new Error(`the schema lets no ${verdict} through`)
  }
}

function mismatch(reference: string): Problem {
  return new Problem('reference_mismatch', `The reference ${reference} stands for another deposit of this project.`, {
    remedy: 'Use the reference of this payment, or repeat the first deposit with its own facts.',
  })
}
