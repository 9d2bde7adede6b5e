import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { newKeySchema } from '#contracts/api-key.ts'
import { projectSchema } from '#contracts/api-project.ts'
import { datasetSchema } from '#contracts/api-dataset.ts'
import { depositSchema, walletSchema } from '#contracts/api-wallet.ts'
import { ApiClient } from '#src/cli/api-client.ts'
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
  const operator = new ApiClient(apiUrl, operatorKey)
  const project = await operator.post('/projects', { body: { name: `chaos ${randomUUID()}` }, schema: projectSchema })
  const projectId = project.body.id
  const key = await operator.post(`/projects/${projectId}/keys`, { body: { name: 'chaos' }, schema: newKeySchema })
  const wallet = await operator.post(`/projects/${projectId}/wallet`, { schema: walletSchema })
  for (const [balanceClass, amount] of Object.entries(AMOUNT)) {
    await operator.post('/deposits', {
      body: {
        walletId: wallet.body.id,
        balanceClass,
        amount: { amount, currency: 'USD' },
        reference: `chaos ${balanceClass}`,
      },
      schema: depositSchema,
    })
  }
  const { secret } = key.body
  if (secret === undefined) throw new Error('The API made a key and did not show its secret.')
  const { documents } = await collectFolder(DOCUMENTS)
  const { corpusId } = await uploadCorpus(new ApiClient(apiUrl, secret), documents)
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
