import { newId } from '#db/ids.ts'
import { usd } from './api.ts'

/** Whatever an address can name. */
export interface Ids {
  readonly organisation: string
  readonly project: string
  readonly key: string
  readonly wallet: string
  readonly account: string
  readonly month: string
  readonly deposit: string
  readonly run: string
  readonly call: string
  readonly attempt: string
  readonly corpus: string
  readonly passage: string
  readonly limit: string
  readonly dataset: string
  readonly schedule: string
  readonly webhook: string
  readonly delivery: string
  readonly depositRequest: string
}

/** Each as the document of the API names it in an address. */
export const names: Ids = {
  organisation: '{id}',
  project: '{id}',
  key: '{id}',
  wallet: '{id}',
  account: '{id}',
  month: '{month}',
  deposit: '{id}',
  run: '{id}',
  call: '{id}',
  attempt: '{number}',
  corpus: '{id}',
  passage: '{passageId}',
  limit: '{id}',
  dataset: '{id}',
  schedule: '{id}',
  webhook: '{id}',
  delivery: '{id}',
  depositRequest: '{id}',
}

export const pockets = [{ balanceClass: 'direct', amount: usd('0.1') }]

/** Every address with an id in it, by who may call it. A route that is missing here fails the last test. */
export const routes = {
  operator: (ids: Ids) =>
    [
      ['GET', `/organisations/${ids.organisation}`],
      ['PATCH', `/organisations/${ids.organisation}`, { name: 'x' }],
      ['GET', `/projects/${ids.project}`],
      ['PATCH', `/projects/${ids.project}`, { maxRunningRuns: 7 }],
      ['POST', `/projects/${ids.project}/keys`, { name: 'x' }],
      ['GET', `/projects/${ids.project}/keys`],
      ['GET', `/keys/${ids.key}`],
      ['PATCH', `/keys/${ids.key}`, { name: 'x' }],
      ['POST', `/keys/${ids.key}/rotate`, { overlapSeconds: 60 }],
      ['GET', `/audit?projectId=${ids.project}`],
      ['GET', `/margins?project=${ids.project}`],
      ['POST', '/webhooks', { url: 'https://example.org/', topics: ['state'], projectId: ids.project }],
      ['POST', '/limits', { scope: 'project', subjectId: ids.project, measure: 'calls', period: 'day', cap: 1 }],
      ['POST', '/limits', { scope: 'key', subjectId: ids.key, measure: 'calls', period: 'day', cap: 1 }],
      ['POST', '/limits', { scope: 'step', subjectId: ids.run, step: 'x', measure: 'calls', period: 'day', cap: 1 }],
      ['DELETE', `/keys/${ids.key}`],
      ['POST', `/projects/${ids.project}/wallet`, {}],
      ['GET', `/projects/${ids.project}/wallet`],
      ['POST', `/deposits/${ids.deposit}/reversal`],
      ['POST', `/wallets/${ids.wallet}/refunds`, { amount: usd('1'), reference: newId(Date.now()) }],
      [
        'POST',
        '/deposits',
        { walletId: ids.wallet, balanceClass: 'direct', amount: usd('1'), reference: newId(Date.now()) },
      ],
      ['GET', `/runs?projectId=${ids.project}`],
      ['GET', `/deposit-requests/${ids.depositRequest}`],
      ['POST', `/deposit-requests/${ids.depositRequest}/approve`],
      ['POST', `/deposit-requests/${ids.depositRequest}/refuse`],
      ['POST', `/calls/${ids.call}/attempts/${ids.attempt}/void`, { reason: 'it was not billed' }],
      ...limits(ids),
      ...webhooks(ids),
      ...reads(ids),
    ] as const,
  project: (ids: Ids) =>
    [
      ['GET', `/projects/${ids.project}`],
      ['GET', `/projects/${ids.project}/wallet`],
      ['GET', `/runs?projectId=${ids.project}`],
      ...limits(ids),
      ...webhooks(ids),
      ...reads(ids),
      ['POST', `/runs/${ids.run}/top-up`, { pockets }],
      ['POST', `/runs/${ids.run}/pause`],
      ['POST', `/runs/${ids.run}/resume`],
      ['POST', `/runs/${ids.run}/answer`, { answer: 'yes' }],
      ['POST', `/runs/${ids.run}/rerun`],
      ['POST', `/runs/${ids.run}/fork`],
      ['POST', `/runs/${ids.run}/cancel`, {}],
      ['POST', `/runs/${ids.run}/end`],
      ['PATCH', `/schedules/${ids.schedule}`, { state: 'paused' }],
      ['DELETE', `/schedules/${ids.schedule}`],
      ['POST', `/corpora/${ids.corpus}/documents`, { documents: [{ source: 'a.md', text: 'x' }] }],
    ] as const,
}

function limits(ids: Ids) {
  return [
    ['POST', '/limits', { scope: 'run', subjectId: ids.run, measure: 'calls', period: 'day', cap: 1 }],
    ['GET', `/limits?projectId=${ids.project}`],
    ['PATCH', `/limits/${ids.limit}`, { cap: 7 }],
    ['DELETE', `/limits/${ids.limit}`],
  ] as const
}

function webhooks(ids: Ids) {
  return [
    ['GET', `/webhooks?projectId=${ids.project}`],
    ['GET', `/webhooks/${ids.webhook}`],
    ['PATCH', `/webhooks/${ids.webhook}`, { topics: ['state'] }],
    ['GET', `/webhooks/${ids.webhook}/deliveries`],
    ['POST', `/webhook-deliveries/${ids.delivery}/retry`],
    ['DELETE', `/webhooks/${ids.webhook}`],
  ] as const
}

/** What both may read. */
export function reads(ids: Ids) {
  return [
    ['GET', `/limits/${ids.limit}`],
    ['GET', `/wallets/${ids.wallet}/lots`],
    ['GET', `/wallets/${ids.wallet}/balances`],
    ['GET', `/wallets/${ids.wallet}/statements/${ids.month}`],
    ['GET', `/accounts/${ids.account}/balance`],
    ['GET', `/accounts/${ids.account}/ledger`],
    ['GET', `/deposits?projectId=${ids.project}`],
    ['GET', `/deposits/${ids.deposit}`],
    ['GET', `/calls?projectId=${ids.project}`],
    ['GET', `/runs/${ids.run}`],
    ['GET', `/runs/${ids.run}/calls`],
    ['GET', `/runs/${ids.run}/report`],
    ['GET', `/runs/${ids.run}/ledger`],
    ['GET', `/runs/${ids.run}/events?format=json`],
    ['GET', `/runs/${ids.run}/events`],
    ['GET', `/calls/${ids.call}`],
    ['GET', `/calls/${ids.call}/ledger`],
    ['GET', `/keys/${ids.key}/calls`],
    ['GET', `/corpora?projectId=${ids.project}`],
    ['GET', `/corpora/${ids.corpus}`],
    ['GET', `/corpora/${ids.corpus}/passages/${ids.passage}`],
    ['GET', `/runs/${ids.run}/rows`],
    ['GET', `/runs/${ids.run}/row-counts`],
    ['GET', `/datasets/${ids.dataset}`],
    ['GET', `/datasets/${ids.dataset}/rows`],
    ['GET', `/datasets?projectId=${ids.project}`],
    ['GET', `/schedules/${ids.schedule}`],
    ['GET', `/schedules/${ids.schedule}/firings`],
    ['GET', `/schedules?projectId=${ids.project}`],
  ] as const
}
