import type { Pockets } from '#contracts/api-money.ts'
import { Problem } from '#contracts/codes.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { newId } from './ids.ts'
import type { Funding, FundingRefusal } from './ledger.ts'

/** The pockets that were asked for, as the ledger takes them. */
export function fundingsOf(pockets: Pockets, nowMs: number): readonly Funding[] {
  return pockets.map(({ balanceClass, amount, exchangeTo }) => {
    const parsed = parseDecimal(amount.amount)
    invariant(parsed.ok, 'amounts are checked where requests come in')
    return { id: newId(nowMs), balanceClass, currency: amount.currency, amount: parsed.nano, exchangeTo }
  })
}

/** @throws Problem what a refusal says, with what to do about it */
export function refuseFunding(refusal: FundingRefusal | undefined): void {
  if (!refusal) return
  const { reason, balanceClass, currency, asked, free } = refusal
  const money = (nano: bigint | null) => toAmount(nano ?? 0n, currency ?? '')
  switch (reason) {
    case 'wallet_short':
      throw new Problem(
        'wallet_short',
        `The ${balanceClass} balance in ${currency} is short: ${money(asked).amount} needed, ${money(free).amount} free.`,
        {
          remedy: 'Ask for less, or let an operator deposit.',
          extra: { balanceClass, needed: money(asked), free: money(free) },
        },
      )
    case 'no_quote':
      throw new Problem('no_quote', `No quote for ${currency} is in force.`, {
        remedy: 'Let an operator store one, or fund the envelope in the currency of its routes.',
      })
    case 'wrong_currency':
      throw new Problem('invalid_request', `${currency} cannot be exchanged to itself.`, {
        remedy: 'Leave exchangeTo out.',
      })
    case 'invalid_amount':
      throw new Problem(
        'invalid_amount',
        `The amount in ${currency} is not between one nano and 1000000 after the exchange.`,
        {
          remedy: 'Exchange more, or less.',
        },
      )
    case 'no_wallet':
      throw new Problem('wallet_short', 'The project has no wallet.', {
        remedy: 'Let an operator make one and deposit into it.',
      })
    case 'debt_outstanding':
      throw new Problem('debt_outstanding', `The project owes ${money(asked).amount} ${currency} from overages.`, {
        remedy: 'Let an operator deposit: a deposit pays the debt first.',
        extra: { debt: money(asked) },
      })
    case 'envelope_closed':
      throw runFinished()
    case 'not_root':
      throw new Problem('not_root', 'The run is a child: its money comes from the run above it.', {
        remedy: 'Top up the run at the root of the tree.',
      })
    case 'unknown_key':
    case 'unknown_run':
    case 'unknown_envelope':
    case 'envelope_exists':
    case 'standing_envelope':
    case 'mismatch':
      throw new Error(`a run has its own key, envelope and fundings: ${reason}`)
  }
}

export function runFinished(): Problem {
  return new Problem('run_finished', 'The run has ended, or is ending.', { remedy: 'Start another run.' })
}
