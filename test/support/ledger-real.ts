import { correct } from '#db/correction.ts'
import { post } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, deposit, openEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { ledgerId } from '#calls/charge.ts'
import type { BalanceClass } from '#contracts/names.ts'
import type { Scope } from '#db/database.ts'
import type { Action, ActionOf } from './ledger-model.ts'
import { holdOf, openCalls, pocketOf, settlementOf, type Process, type StormCall } from './storm.ts'
import { makeKey } from './world.ts'

/** Carries the model's actions out on a tenant of its own, through the functions that the product calls. */
export class RealLedger {
  readonly scope: Scope = { projectId: newId(Date.now()) }
  readonly organisationId = newId(Date.now())
  readonly #process: Process
  readonly #walletId = newId(Date.now())
  #keyId = ''
  readonly #runs = new Map<string, { readonly runId: string; readonly envelopeId: string }>()
  readonly #calls = new Map<string, StormCall>()
  readonly #deposits = new Map<string, string>()
  /** The pocket that each attempt holds. */
  readonly #pockets = new Map<string, string>()

  constructor(process: Process) {
    this.#process = process
  }

  async create(): Promise<void> {
    const { db } = this.#process
    const { organisationId } = this
    await db.insertInto('organisation').values({ id: organisationId, name: 'storm' }).execute()
    await db
      .insertInto('project')
      .values({ id: this.scope.projectId, organisation_id: organisationId, name: `p-${this.scope.projectId}` })
      .execute()
    await db.insertInto('wallet').values({ id: this.#walletId, project_id: this.scope.projectId }).execute()
    this.#keyId = await makeKey(db, this.scope)
  }

  /** The run, and the envelope, that an envelope's name stands for. */
  run(name: string): { readonly runId: string; readonly envelopeId: string } {
    const run = this.#runs.get(name) ?? { runId: newId(Date.now()), envelopeId: newId(Date.now()) }
    this.#runs.set(name, run)
    return run
  }

  async apply(action: Action): Promise<string> {
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
        return setGate(this.#process.db, this.scope, {
          ...this.run(action.envelope),
          gate: action.gate,
          reason: 'storm',
        })
      case 'close':
        return closeEnvelope(this.#process.db, this.scope, { ...this.run(action.envelope), reason: 'storm' })
    }
  }

  async #deposit({ reference, balanceClass, amount }: ActionOf<'deposit'>): Promise<string> {
    const id = this.#deposits.get(reference) ?? newId(Date.now())
    this.#deposits.set(reference, id)
    const request = { id, walletId: this.#walletId, balanceClass, currency: 'USD', amount, reference }
    return (await deposit(this.#process.db, this.scope, request)).verdict
  }

  async #open({ envelope, direct, credit }: ActionOf<'open'>): Promise<string> {
    const run = this.run(envelope)
    let reason = 'moved'
    await this.#process.db
      .transaction()
      .execute(async (trx) => {
        const refusal = await openEnvelope(trx, this.scope, {
          ...run,
          apiKeyId: this.#keyId,
          fundings: [funding('direct', direct), funding('credit', credit)],
        })
        if (!refusal) {
          const row = {
            id: run.runId,
            project_id: this.scope.projectId,
            api_key_id: this.#keyId,
            envelope_id: run.envelopeId,
          }
          await trx
            .insertInto('run')
            .values({ ...row, agent: 'test', model: 'steady', input: '{}', options: '{}' })
            .execute()
          return
        }
        reason = refusal.reason
        throw new Error(reason)
      })
      .catch((error: unknown) => {
        if (!(error instanceof Error) || error.message !== reason) throw error
      })
    return reason
  }

  async #topUp({ envelope, balanceClass, amount }: ActionOf<'top_up'>): Promise<string> {
    const request = { ...this.run(envelope), fundings: [funding(balanceClass, amount)] }
    const refusal = await topUpEnvelope(this.#process.db, this.scope, request)
    return refusal?.reason ?? 'moved'
  }

  async #reserve({ envelope, balanceClass, call: name, number, amount }: ActionOf<'reserve'>): Promise<string> {
    const { db, instanceId } = this.#process
    const run = this.run(envelope)
    const call = await this.#call(name, run)
    const pocket = await pocketOf(db, this.scope, { ...run, balanceClass })
    const item = holdOf(call, amount, { number })
    const [answer] = (await post(db, { instanceId, settles: [], reserves: [{ pocket, item }] })).reserves
    if (!answer) throw new Error('no answer')
    if (answer.verdict === 'granted') this.#pockets.set(`${name}:${number}`, pocket.accountId)
    return answer.verdict
  }

  async #settle({ call: name, number, amount, answers }: ActionOf<'settle'>): Promise<string> {
    const call = await this.#call(name)
    const item = settlementOf(call, amount, { number, ...(answers === 'answers' && { answer: 'done' }) })
    return (await this.#process.queue.settle(this.#pocketOfAttempt(name, number), item)).verdict
  }

  async #correct({ call: name, number, turn, amount }: ActionOf<'correct'>): Promise<string> {
    const call = await this.#call(name)
    const key = { ...call, number }
    return correct(this.#process.db, this.#pocketOfAttempt(name, number), {
      ...settlementOf(call, amount, { number }),
      correctionId: ledgerId({ ...key, number: number * 100 + turn }, 'correction'),
      debtId: ledgerId({ ...key, number: number * 100 + turn }, 'debt'),
      amount,
      certainty: 'estimated',
      answerId: null,
    })
  }

  #pocketOfAttempt(call: string, number: number) {
    const accountId = this.#pockets.get(`${call}:${number}`) ?? this.scope.projectId
    return { projectId: this.scope.projectId, accountId }
  }

  async #call(name: string, run = this.run('none')): Promise<StormCall> {
    const known = this.#calls.get(name)
    if (known) return known
    const [call] = await openCalls(this.#process.db, this.scope, { ...run, count: 1 })
    if (!call) throw new Error('no call')
    this.#calls.set(name, call)
    return call
  }
}

function funding(balanceClass: BalanceClass, amount: bigint) {
  return { id: newId(Date.now()), balanceClass, currency: 'USD', amount }
}
