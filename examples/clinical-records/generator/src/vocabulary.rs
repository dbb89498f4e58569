//! Word lists: diagnoses, analytes, drugs and the sentences of which notes are made.

/// A diagnosis with its ICD-10 code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) code: &'static str,
    pub(crate) name: &'static str,
    pub(crate) complaint: &'static str,
}

const fn diagnosis(code: &'static str, name: &'static str, complaint: &'static str) -> Diagnosis {
    Diagnosis { code, name, complaint }
}

pub(crate) const DIAGNOSES: [Diagnosis; 24] = [
    diagnosis(
        "E11.9",
        "Type 2 diabetes mellitus without complications",
        "raised home glucose readings",
    ),
    diagnosis("I10", "Essential hypertension", "headache and high blood pressure readings"),
    diagnosis(
        "J45.909",
        "Unspecified asthma, uncomplicated",
        "wheeze and chest tightness at night",
    ),
    diagnosis("N18.30", "Chronic kidney disease, stage 3", "tiredness and ankle swelling"),
    diagnosis("I50.9", "Heart failure, unspecified", "breathlessness on lying flat"),
    diagnosis("J44.1", "COPD with acute exacerbation", "worsening cough with green sputum"),
    diagnosis("M17.11", "Primary osteoarthritis, right knee", "right knee pain on stairs"),
    diagnosis(
        "K21.9",
        "Gastro-esophageal reflux disease",
        "burning behind the breastbone after meals",
    ),
    diagnosis("E78.5", "Hyperlipidemia, unspecified", "review of cholesterol treatment"),
    diagnosis("F41.1", "Generalized anxiety disorder", "poor sleep and constant worry"),
    diagnosis("G43.909", "Migraine, not intractable", "throbbing left sided headache"),
    diagnosis("L40.0", "Psoriasis vulgaris", "itching plaques on both elbows"),
    diagnosis("D50.9", "Iron deficiency anemia", "fatigue and light-headedness"),
    diagnosis("I48.91", "Unspecified atrial fibrillation", "palpitations since the morning"),
    diagnosis("E03.9", "Hypothyroidism, unspecified", "weight gain and feeling cold"),
    diagnosis("N39.0", "Urinary tract infection, site not specified", "burning on passing urine"),
    diagnosis("J18.9", "Pneumonia, unspecified organism", "fever and productive cough"),
    diagnosis("K57.30", "Diverticulosis of large intestine", "cramping left lower abdominal pain"),
    diagnosis("M54.50", "Low back pain, unspecified", "low back pain after lifting"),
    diagnosis("G47.33", "Obstructive sleep apnea", "loud snoring and daytime sleepiness"),
    diagnosis("R55", "Syncope and collapse", "collapse in the kitchen"),
    diagnosis("L03.115", "Cellulitis of right lower limb", "hot swollen right shin"),
    diagnosis("H81.10", "Benign paroxysmal vertigo", "spinning when turning in bed"),
    diagnosis("S52.501", "Fracture of lower end of right radius", "wrist pain after a fall"),
];

/// Name, lowest and highest usual value in units of `scale`, divisor, unit.
pub(crate) type Analyte = (&'static str, usize, usize, usize, &'static str);

pub(crate) const ANALYTES: [Analyte; 40] = [
    ("Sodium", 135, 145, 1, "mmol/L"),
    ("Potassium", 35, 51, 10, "mmol/L"),
    ("Chloride", 98, 107, 1, "mmol/L"),
    ("Bicarbonate", 22, 29, 1, "mmol/L"),
    ("Urea nitrogen", 7, 20, 1, "mg/dL"),
    ("Creatinine", 6, 13, 10, "mg/dL"),
    ("Glucose, fasting", 70, 99, 1, "mg/dL"),
    ("Calcium, total", 86, 102, 10, "mg/dL"),
    ("Magnesium", 17, 22, 10, "mg/dL"),
    ("Phosphate", 25, 45, 10, "mg/dL"),
    ("Albumin", 35, 50, 10, "g/dL"),
    ("Protein, total", 60, 83, 10, "g/dL"),
    ("Bilirubin, total", 1, 12, 10, "mg/dL"),
    ("Alkaline phosphatase", 40, 129, 1, "U/L"),
    ("ALT", 7, 55, 1, "U/L"),
    ("AST", 8, 48, 1, "U/L"),
    ("Gamma-GT", 8, 61, 1, "U/L"),
    ("Lactate dehydrogenase", 122, 222, 1, "U/L"),
    ("White cell count", 34, 96, 10, "x10(9)/L"),
    ("Red cell count", 392, 565, 100, "x10(12)/L"),
    ("Hemoglobin", 116, 166, 10, "g/dL"),
    ("Hematocrit", 355, 486, 10, "%"),
    ("Mean cell volume", 782, 979, 10, "fL"),
    ("Platelets", 135, 371, 1, "x10(9)/L"),
    ("Neutrophils", 15, 65, 10, "x10(9)/L"),
    ("Lymphocytes", 9, 31, 10, "x10(9)/L"),
    ("Monocytes", 2, 8, 10, "x10(9)/L"),
    ("Eosinophils", 0, 5, 10, "x10(9)/L"),
    ("C-reactive protein", 0, 80, 10, "mg/L"),
    ("Sedimentation rate", 0, 29, 1, "mm/h"),
    ("TSH", 3, 42, 10, "mIU/L"),
    ("Free T4", 9, 17, 10, "ng/dL"),
    ("Hemoglobin A1c", 40, 56, 10, "%"),
    ("Cholesterol, total", 120, 199, 1, "mg/dL"),
    ("HDL cholesterol", 40, 90, 1, "mg/dL"),
    ("Triglycerides", 50, 149, 1, "mg/dL"),
    ("Ferritin", 24, 336, 1, "ng/mL"),
    ("Vitamin B12", 180, 914, 1, "ng/L"),
    ("Folate", 40, 200, 10, "ug/L"),
    ("INR", 9, 11, 10, "ratio"),
];

pub(crate) const DRUGS: [&str; 24] = [
    "metformin 500 mg",
    "lisinopril 10 mg",
    "amlodipine 5 mg",
    "atorvastatin 40 mg",
    "furosemide 20 mg",
    "albuterol inhaler 90 mcg",
    "omeprazole 20 mg",
    "levothyroxine 75 mcg",
    "apixaban 5 mg",
    "metoprolol 25 mg",
    "sertraline 50 mg",
    "ferrous sulfate 325 mg",
    "acetaminophen 650 mg",
    "ibuprofen 400 mg",
    "prednisone 20 mg",
    "amoxicillin 500 mg",
    "cephalexin 500 mg",
    "sumatriptan 50 mg",
    "gabapentin 300 mg",
    "ondansetron 4 mg",
    "enoxaparin 40 mg",
    "insulin glargine 12 units",
    "potassium chloride 20 mEq",
    "docusate 100 mg",
];

pub(crate) const HISTORY: [&str; 22] = [
    "Symptoms came on gradually over about two weeks and are worse in the morning",
    "There has been no fever, no weight loss and no change of appetite",
    "The patient lives with a relative on the second floor and manages all daily activities",
    "Home measurements were brought along on a sheet of paper and are acceptable overall",
    "Previous treatment was tolerated well apart from mild nausea in the first days",
    "There is no history of allergy to medication, only to adhesive dressings",
    "Smoking stopped many years ago, alcohol is taken on weekends only",
    "Family history is remarkable for diabetes in the mother and stroke in an uncle",
    "Sleep is disturbed two or three times a night, without pain",
    "Exercise tolerance is about four hundred meters on level ground",
    "The patient walks the dog every day and has joined a community swimming group",
    "Immunizations are documented as complete in the registry",
    "There was one similar episode in the past, which settled without treatment",
    "No recent travel, no contact with anybody who was unwell",
    "Bowel habit is unchanged and there is no blood in the stool",
    "Hearing is slightly reduced on the left side, examination of the ear is unremarkable",
    "The medication list was reconciled with the pharmacy and two duplicates were removed",
    "Appetite is good and weight is stable when compared with the last measurement",
    "The patient understands the condition and can name all current medicines",
    "No chest discomfort on exertion, no palpitations, no dizziness on standing",
    "There is some concern about cost of treatment and a social work referral was discussed",
    "Numbness in the fingertips was mentioned in passing and will be followed",
];

pub(crate) const EXAMINATION: [&str; 14] = [
    "Alert and comfortable, in no apparent distress",
    "Heart sounds normal, rhythm regular, no murmur",
    "Lungs clear on both sides, normal breath sounds to the bases",
    "Abdomen soft, not tender, no mass, bowel sounds present",
    "No edema of the ankles, pulses symmetrical",
    "Cranial nerves intact, strength full in all limbs, gait steady",
    "Skin warm and dry, no rash apart from what is described above",
    "Throat not inflamed, no enlarged lymph nodes in the neck",
    "Range of motion limited by discomfort at the end of movement",
    "Mood neutral, speech normal, thought coherent",
    "Pupils equal and reactive to light",
    "Mucous membranes moist, capillary refill under two seconds",
    "No tenderness over the spine, straight leg raise negative",
    "Thyroid not enlarged, no tremor of the outstretched hands",
];

pub(crate) const PLANS: [&str; 14] = [
    "Continue present medication without change",
    "Increase the dose stepwise and report side effects by telephone",
    "Repeat blood tests before the next appointment",
    "Physical therapy referral was made for six sessions",
    "Diet and exercise were discussed and a leaflet was handed over",
    "Return at once if there is fever, shortness of breath or new weakness",
    "Imaging is not needed at this time",
    "Keep a diary of symptoms and measurements until the next review",
    "Stop the anti-inflammatory tablets and use acetaminophen when needed",
    "Copy of this document to the family practice",
    "Ambulatory monitoring for twenty-four hours has been requested",
    "Wound check by the nurse in the coming week",
    "The patient agrees with this plan and had no further questions",
    "Discussed with the team in the morning meeting",
];

pub(crate) const NURSING: [&str; 14] = [
    "Resting in bed, call bell in reach, side rails up",
    "Medication given as charted, no reaction observed",
    "Ambulated to the bathroom with one person assisting",
    "Ate half of the meal, fluids encouraged",
    "Complains of mild discomfort, repositioned with good effect",
    "Dressing dry and intact, no sign of infection",
    "Family at the bedside, questions answered",
    "Slept in short intervals, respirations even",
    "Intravenous line flushed, site without redness",
    "Blood drawn and sent to the laboratory",
    "Seen by the team on morning rounds, no new orders",
    "Transported to imaging and back without incident",
    "Oriented to person, place and time, mood calm",
    "Intake and output recorded on the chart, balance even",
];

pub(crate) const CALLERS: [&str; 6] =
    ["Patient", "Daughter of patient", "Son of patient", "Spouse", "Home care nurse", "Pharmacy"];
