import type { BalanceClass } from '#contracts/names.ts'

/** A command with everything that it names; carrying the same one out again is a replay. */
export type Action =
  | {
      readonly kind: 'deposit'
      readonly reference: string
      readonly balanceClass: BalanceClass
      readonly amount: bigint
    }
  | { readonly kind: 'open'; readonly envelope: string; readonly direct: bigint; readonly credit: bigint }
  | {
      readonly kind: 'top_up'
      readonly envelope: string
      readonly balanceClass: BalanceClass
      readonly amount: bigint
    }
  | {
      readonly kind: 'reserve'
      readonly envelope: string
      readonly balanceClass: BalanceClass
      readonly call: string
      readonly number: number
      readonly amount: bigint
    }
  | {
      readonly kind: 'settle'
      readonly call: string
      readonly number: number
      readonly amount: bigint | null
      readonly answers: 'answers' | 'fails'
    }
  | {
      readonly kind: 'correct'
      readonly call: string
      readonly number: number
      readonly turn: number
      readonly amount: bigint
    }
  | { readonly kind: 'gate'; readonly envelope: string; readonly gate: 'open' | 'frozen' | 'closing' }
  | { readonly kind: 'close'; readonly envelope: string }

export type ActionOf<Kind extends Action['kind']> = Extract<Action, { readonly kind: Kind }>

interface Pocket {
  readonly balanceClass: BalanceClass
  balance: bigint
  held: bigint
}

interface Envelope {
  gate: 'open' | 'frozen' | 'closing' | 'closed'
  readonly pockets: Map<BalanceClass, Pocket>
}

interface Attempt {
  readonly pocket: Pocket
  readonly envelope: Envelope
  readonly amount: bigint
  state: 'refused' | 'sent' | 'resolved'
  settled: bigint | null
  answers: 'answers' | 'fails' | undefined
  charged: bigint
  /** What of the charge nothing covered, less what corrections took off that. */
  owed: bigint
  /** What each correction said. */
  readonly truths: Map<number, bigint>
}

const MOST = 10n ** 15n

/** What the ledger must do, in a few lines of arithmetic: no journal, no locks, no database. */
export class LedgerModel {
  readonly wallet = { direct: 0n, credit: 0n }
  debt = 0n
  readonly envelopes = new Map<string, Envelope>()
  readonly attempts = new Map<string, Attempt>()
  readonly answered = new Set<string>()
  readonly #deposits = new Map<string, ActionOf<'deposit'>>()

  /** Carries an action out and says the verdict that the ledger must give. */
  apply(action: Action): string {
    switch (action.kind) {
      case 'deposit':
        return this.#deposit(action)
      case 'open':
        return this.#open(action)
      case 'top_up':
        return this.#topUp(action)
      case 'reserve':
        return this.#reserve(action)
      case 'settle':
        return this.#settle(action)
      case 'correct':
        return this.#correct(action)
      case 'gate':
        return this.#setGate(action)
      case 'close':
        return this.#close(action)
    }
  }

  attemptsOf(call: string): readonly Attempt[] {
    return [...this.attempts].filter(([key]) => key.startsWith(`${call}:`)).map(([, attempt]) => attempt)
  }

  #deposit(action: ActionOf<'deposit'>): string {
    const known = this.#deposits.get(action.reference)
    if (known) {
      const same = known.amount === action.amount && known.balanceClass === action.balanceClass
      return same ? 'replayed' : 'reference_mismatch'
    }
    if (action.amount <= 0n || action.amount > MOST) return 'invalid_amount'
    this.#deposits.set(action.reference, action)
    const has = this.wallet[action.balanceClass] + action.amount
    const paid = least(this.debt, has)
    this.debt -= paid
    this.wallet[action.balanceClass] = has - paid
    return 'deposited'
  }

  #open({ envelope, direct, credit }: ActionOf<'open'>): string {
    if ([direct, credit].some((amount) => amount <= 0n || amount > MOST)) return 'invalid_amount'
    if (this.debt > 0n) return 'debt_outstanding'
    if (direct > this.wallet.direct || credit > this.wallet.credit) return 'wallet_short'
    this.envelopes.set(envelope, { gate: 'open', pockets: new Map() })
    this.#topUp({ kind: 'top_up', envelope, balanceClass: 'direct', amount: direct })
    this.#topUp({ kind: 'top_up', envelope, balanceClass: 'credit', amount: credit })
    return 'moved'
  }

  #topUp({ envelope, balanceClass, amount }: ActionOf<'top_up'>): string {
    const target = this.envelopes.get(envelope)
    if (!target) return 'unknown_envelope'
    if (target.gate === 'closing' || target.gate === 'closed') return 'envelope_closed'
    if (amount <= 0n || amount > MOST) return 'invalid_amount'
    if (amount > this.wallet[balanceClass]) return 'wallet_short'
    const pocket = target.pockets.get(balanceClass) ?? { balanceClass, balance: 0n, held: 0n }
    target.pockets.set(balanceClass, pocket)
    this.wallet[balanceClass] -= amount
    pocket.balance += amount
    return 'moved'
  }

  #reserve({ envelope: name, balanceClass, call, number, amount }: ActionOf<'reserve'>): string {
    const envelope = this.envelopes.get(name)
    const pocket = envelope?.pockets.get(balanceClass)
    const known = this.attempts.get(`${call}:${number}`)
    if (known?.state === 'refused') return 'exhausted'
    if (known?.state === 'resolved') return 'taken'
    if (known) return known.amount === amount && known.pocket === pocket ? 'granted' : 'mismatch'
    if (!envelope || !pocket) return 'unknown_pocket'
    if (amount < 0n || amount > MOST) return 'invalid_amount'
    if (envelope.gate !== 'open') return envelope.gate
    if (this.answered.has(call)) return 'answered'
    if (this.attemptsOf(call).some(({ state }) => state === 'sent')) return 'taken'
    const attempt: Attempt = {
      pocket,
      envelope,
      amount,
      state: amount > pocket.balance ? 'refused' : 'sent',
      settled: null,
      answers: undefined,
      charged: 0n,
      owed: 0n,
      truths: new Map(),
    }
    if (amount <= pocket.balance && amount > pocket.balance - pocket.held) return 'busy'
    this.attempts.set(`${call}:${number}`, attempt)
    if (attempt.state === 'refused') return 'exhausted'
    pocket.held += amount
    return 'granted'
  }

  #settle({ call, number, amount, answers }: ActionOf<'settle'>): string {
    const attempt = this.attempts.get(`${call}:${number}`)
    if (!attempt || attempt.state === 'refused') return 'unknown_hold'
    if (amount !== null && (amount < 0n || amount > MOST)) return 'invalid_amount'
    if (attempt.state === 'resolved') {
      return attempt.settled === amount && attempt.answers === answers ? 'replayed' : 'mismatch'
    }
    const charge = amount ?? 0n
    const { pocket } = attempt
    pocket.held -= attempt.amount
    pocket.balance -= least(charge, attempt.amount)
    if (charge > attempt.amount) this.#take(attempt, charge - attempt.amount)
    attempt.state = 'resolved'
    attempt.settled = amount
    attempt.answers = answers
    attempt.charged = charge
    if (answers === 'answers') this.answered.add(call)
    return 'settled'
  }

  #correct({ call, number, turn, amount }: ActionOf<'correct'>): string {
    const attempt = this.attempts.get(`${call}:${number}`)
    if (amount < 0n || amount > MOST) return 'invalid_amount'
    if (!attempt || attempt.state === 'refused') return 'unknown_hold'
    if (attempt.state === 'sent') return 'unresolved'
    const known = attempt.truths.get(turn)
    if (known !== undefined) return known === amount ? 'replayed' : 'mismatch'
    const more = amount - attempt.charged
    if (more > 0n) this.#take(attempt, more)
    else this.#giveBack(attempt, -more)
    attempt.charged = amount
    attempt.truths.set(turn, amount)
    return 'corrected'
  }

  /** Out of free money first, of the wallet once the envelope is closed; the rest is owed. */
  #take(attempt: Attempt, amount: bigint): void {
    const { pocket, envelope } = attempt
    const isClosed = envelope.gate === 'closed'
    const taken = least(amount, isClosed ? this.wallet[pocket.balanceClass] : pocket.balance - pocket.held)
    if (isClosed) this.wallet[pocket.balanceClass] -= taken
    else pocket.balance -= taken
    this.debt += amount - taken
    attempt.owed += amount - taken
  }

  /** What the attempt left as a debt is paid off first, unless a deposit has paid it. */
  #giveBack(attempt: Attempt, amount: bigint): void {
    const { pocket, envelope } = attempt
    const paid = least(amount, least(attempt.owed, this.debt))
    this.debt -= paid
    attempt.owed -= paid
    if (envelope.gate === 'closed') this.wallet[pocket.balanceClass] += amount - paid
    else pocket.balance += amount - paid
  }

  #setGate({ envelope: name, gate }: ActionOf<'gate'>): string {
    const envelope = this.envelopes.get(name)
    if (!envelope) return 'unknown'
    if (envelope.gate !== 'closing' && envelope.gate !== 'closed') envelope.gate = gate
    return envelope.gate
  }

  #close({ envelope: name }: ActionOf<'close'>): string {
    const envelope = this.envelopes.get(name)
    if (!envelope) return 'unknown'
    // A hold of nothing too: what its call turns out to cost is paid by the envelope.
    if ([...this.attempts.values()].some((each) => each.envelope === envelope && each.state === 'sent'))
      return 'open_holds'
    for (const pocket of envelope.pockets.values()) {
      this.wallet[pocket.balanceClass] += pocket.balance
      pocket.balance = 0n
    }
    envelope.gate = 'closed'
    return 'closed'
  }
}

function least(left: bigint, right: bigint): bigint {
  return left < right ? left : right
}
