import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { datasetSchema } from '#contracts/api-dataset.ts'
import { BALANCE_CLASSES } from '#contracts/names.ts'
import { PurserClient } from '#client/purser-client.ts'
import { uploadCorpus } from '#src/cli/corpus-upload.ts'
import { collectFolder } from '#tools/sources.ts'

export interface Tenant {
  readonly projectId: string
  readonly key: string
  readonly corpusId: string
  readonly datasetId: string
}

/** Of the dataset that maps go over. */
const ROWS = 40

const DOCUMENTS = fileURLToPath(new URL('../../docs', import.meta.url))
const AMOUNT = { direct: '5000', credit: '500' } as const

/** A project with money, a key, and our own documentation to be asked about. Before any kill. */
export async function makeTenant(apiUrl: string, operatorKey: string): Promise<Tenant> {
  const operator = new PurserClient(apiUrl, operatorKey)
  const project = await operator.post('/projects', { body: { name: `chaos ${randomUUID()}` } })
  const projectId = project.id
  const key = await operator.post('/projects/{id}/keys', {
    params: { path: { id: projectId } },
    body: { name: 'chaos' },
  })
  const wallet = await operator.post('/projects/{id}/wallet', { params: { path: { id: projectId } }, body: null })
  for (const balanceClass of BALANCE_CLASSES) {
    await operator.post('/deposits', {
      body: {
        walletId: wallet.id,
        balanceClass,
        amount: { amount: AMOUNT[balanceClass], currency: 'USD' },
        reference: `chaos ${balanceClass}`,
      },
    })
  }
  const { secret } = key
  if (secret === undefined) throw new Error('The API made a key and did not show its secret.')
  const { documents } = await collectFolder(DOCUMENTS)
  const { corpusId } = await uploadCorpus(new PurserClient(apiUrl, secret), documents)
  return { projectId, key: secret, corpusId, datasetId: await uploadRows(apiUrl, secret) }
}

async function uploadRows(apiUrl: string, key: string): Promise<string> {
  const lines = Array.from({ length: ROWS }, (_, index) => `${index + 1},The budget of item ${index + 1} is spent.`)
  const response = await fetch(`${apiUrl}/api/v1/datasets?name=chaos`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'text/csv' },
    body: ['number,text', ...lines].join('\n'),
  })
  return datasetSchema.parse(await response.json()).id
}
