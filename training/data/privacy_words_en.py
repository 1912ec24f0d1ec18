"""Word lists of the English name recogniser: common given names of many countries, and capitalised words that are no names.

Knows nothing of how they are used. Next: `privacy_names_en.py`.
"""


def _words(block: str) -> frozenset[str]:
    return frozenset(block.split())


GIVEN_NAMES = _words(
    """
    aaliyah aarav aaron abby abdallah abdul abdullah abel abena abigail abraham adam adele aditi aditya adrian agnes ahmad ahmed aidan
    aiden aisha aisling ajay akash akiko akira alan alana alastair albert alec alejandra alejandro alena alex alexa alexander alexandra
    alexis alfie alfred ali alice alicia alina alison alistair allan allen allison alma alvin alyson alyssa ama amanda amara amber amelia
    amina amir amit amos amrita amy ana anand ananya anastasia anders andre andrea andreas andrew andy angel angela angelica angelina
    angie angus anh anika anil anita anjali ankit ann anna annabel anne annette annie anselm anthony antoinette anton antonio anya april
    ariana arjun arlene armando arnold arthur arturo arun aryan asha ashlee ashleigh ashley ashok astrid aubrey audrey august augustine
    aurora austin ava avery ayesha aziz barbara barry bart basil beatrice beau becky belinda bella ben benjamin bernadette bernard bernice
    bert beth bethan bethany betty beverly bharat bianca bilal billie birgit bjorn blake bob bobby bonnie boris brad bradford bradley
    brady brandon brayden brenda brendan brent brett brian brianna bridget britney brittany brooke bruce bryan bryce byron caleb callum
    calvin cameron camila camille candace candice carl carla carlos carlton carmel carmela carmen carol carole caroline carolyn carrie
    carter casey cassandra cassidy catherine cathy cecil cecilia cedric celeste celia cesar chad chandan chandra chantal chantel charlene
    charles charlie charlotte chase chelsea chelsey chen cheryl chidi chinedu chloe chris christa christian christie christina christine
    christopher cindy claire clara clarence claude claudette claudia clayton clifford clinton clyde cody colin colleen connie connor conor
    constance cora corey cornelius cory courtney craig cristian cristina crystal curtis cynthia daisy dale dalton damian damon dan dana
    daniel daniela danielle danny dante daphne darius darlene darrell darren darryl daryl david davina dawn dean deborah debra declan
    deepa deepak deirdre delia della demetrius denis denise dennis derek derrick desmond dev devin devon dewayne diana diane diarmuid
    diego dimitri dina dinesh divya dolores dominic dominik dominique don donald donna dora doreen doris dorothy dot doug douglas duane
    duc duncan dustin dwayne dwight dylan eamon earl ebony eddie edgar edith edmund edna eduardo edward edwin eileen elaina elaine eleanor
    elena eli elias elijah elisa elise eliza elizabeth ella ellen ellie elliot elliott elmer elsie elvira emanuel emeka emi emil emilia
    emilio emily emma emmanuel enrique eoin eric erica erick erik erika erin ernest ernesto erwin esme esmeralda estelle ester esther
    ethan ethel eugene eunice eva evan evangeline evelyn ewan faisal farah fatima faye felicia felix feng fergus fernando finn fiona
    fletcher flora florence flynn frances francesca francis francisco frank franklin fraser fred freda freddie frederick freya fritz
    gabriel gabriela gabriella gabrielle gail gareth garrett gary gaurav gavin geeta gemma gene genevieve geoffrey george georgia georgina
    gerald geraldine gerard gerry gertrude gideon gilbert gina ginger giovanni giselle giulia gladys glen glenda glenn gloria gordon grace
    graham grant grayson greg gregory greta guadalupe guillermo gustavo guy gwen hailey hamish hamza hana hank hannah hans harish harold
    harper harriet harrison harry haruto harvey hassan hayley hazel heath heather hector heidi helen helena henrietta henrik henry herbert
    herman hilary hilda hillary hiroshi hoa holly howard howell hubert huda hugh hugo hui humphrey huong hussein hyun ian ibrahim ida
    ignacio igor imani imogen imran ines inge ingrid irene iris irma isaac isabel isabella isabelle isaiah isha isla isobel ivan ivor ivy
    jacinta jack jackie jackson jacob jacqueline jade jaime jake jamal james jamie jamila jan jane janet janice jared jarrod jasmine jason
    jasper javier javon jay jean jeanette jeannie jeff jeffery jeffrey jenna jennie jennifer jenny jerald jeremiah jeremy jerome jerri
    jerry jesse jessica jesus jihoon jill jim jimmy jing jo joan joann joanna joanne joaquin jocelyn jodi jodie joe joel johan johann
    johannes john johnathan johnny jolene jon jonas jonathan jonathon jonny jordan jorge jose josef josefina joseph josephine josephus
    joshua josie joyce juan juana juanita judd jude judith judy julia julian juliana julie juliet juliette julio jun jung justin jyoti
    kabir kaitlin kaitlyn kamal kara karen karim karin karina karl karla kasey kate katelyn katharine katherine kathleen kathryn kathy
    katie katrina kavita kay kayla keiko keira keith kelley kellie kelly kelsey kelvin ken kendra kenji kenneth kenny kerry kevin khadija
    khalid kiara kieran kim kimberly kiran kirk kirsten kirsty kofi krishna krista kristen kristie kristin kristina kristopher kumar kurt
    kwame kyle kyra lachlan laila lakshmi lalit lana lance larry lars lata latasha latoya laura lauren lauri laurie lawrence layla leah
    leanne lee lei leigh leila lena lenny leo leon leona leonard leonardo leopold leroy leslie lester leticia lewis liam lilian lillian
    lily linda lindsay lindsey linh lionel lisa lisbeth liza lloyd logan lois lola lorena lorenzo loretta lori lorie lorna lorraine louis
    louisa louise lucas lucia lucian lucille lucy luigi luis luisa luke luther luz lydia lyle lynn lynne mabel mackenzie madeleine
    madeline madison maeve maggie magnus mahmoud malcolm malik mallory mandy manish manoj manuel mara marc marcel marcella marcelo marcia
    marco marcos marcus margaret margarita marguerite maria mariam marian mariana marianne maribel marie marilyn mario marion marisa
    marissa marjorie mark marlene marlon marsha marta martha martin martina marty marvin mary maryam mason mateo mathew mathilda matthew
    mattie maude maureen maurice mavis max maxine maxwell meena megan mehmet mei melanie melinda melissa melody melvin mercedes meredith
    merle mervyn mia michael micheal michele michelle mickey miguel mike mila mildred miles millie milton min mina mindy ming minh minji
    miranda miriam misty mitch mitchell mohamed mohammad mohammed mohan moira mollie molly mona monica monique morgan morris moses
    muhammad mukesh muriel murray mustafa myles myra myrtle nabil nadia nadine nam nancy naoko naomi natalia natalie natasha nathan
    nathaniel naveen neha neil nell nellie nelson nettie ngozi niamh nichola nicholas nick nicola nicolas nicole niels nigel nikhil nikita
    nikki nina nisha noah noel noor nora noreen norma norman nour odette olaf olga olive oliver olivia oluwaseun omar orla orlando osama
    oscar otis otto owen pablo padraig paige pam pamela pascal pat patrice patricia patrick patsy patty paul paula pauline pearl pedro
    peggy penelope penny percy perla perry pete peter petra phil philip phillip phoebe phyllis pierre piers piotr polly pooja poppy
    pradeep prakash pranav prasad preeti prem preston priscilla priya priyanka quentin quinn rachel radha rae rafael rahul raj rajesh
    rakesh ralph ramesh rami ramon ramona randal randall randy rania rashid raul ravi ray raymond raymundo rebecca reece reggie regina
    reginald rekha rene renee reuben rex rhett rhiannon rhonda rhys ricardo richard rick ricky rita ritu rob robert roberta roberto robin
    rocio rodney rodrigo roger rohan rohit roland roman ron ronald ronnie rory rosa rosalie rosalind rosalyn rosanna rose rosemary rosie
    ross rowan roxana roxanne roy ruben ruby rufus rupert russel russell rusty ruth ryan saanvi sabine sabrina sachin sadie saeed sally
    salma salvador salvatore sam samantha sameer samir samira sammy samuel sana sandeep sandra sandy sangeeta sanjay sanjeev santiago
    saoirse sara sarah saskia satoshi saul scarlett scott seamus sean sebastian seema selena serena sergei sergio seth seung shane shankar
    shannon shaquille shari sharon sharron shaun shauna shawn sheena sheila shelby sheldon shelley shelly sheri sherri sherry sheryl
    shirley shivani shreya shweta siddharth sidney sienna sierra silas silvia simon simona simone sinead siobhan skye sneha sofia sonal
    sonia sonja sonya soo sophia sophie spencer stacey stacie stacy stanley stefan stefanie stella stephanie stephen steve steven stewart
    stuart sue sumit sunil sunita suresh susan sushma suzanne sven svetlana swati sylvester sylvia tabatha tabitha takashi tamara tamika
    tammie tammy tania tanvi tanya tao tara tariq tasha tatiana taylor ted teresa terrance terrence terri terry tess tessa thabo thaddeus
    thanh thao thea thelma theo theodore theresa thiago thomas thuy tiffany tim timothy tina tobias toby todd tom tomas tommy tomoko toni
    tonia tony tonya tracey traci tracie tracy tran travis trevor tricia trina trisha tristan troy trudy tuan tunde tyler tyrone ulrich
    uma umar ursula usha valentina valerie vance vanessa varun vaughn velma venkat vera verity vernice vernon veronica vicente vicki
    vickie victor victoria vidya vijay vikram vincent vincenzo vinod viola violet violette virginia vishal vivek vivian vivienne vladimir
    wade walker wallace walt walter wanda warren warwick wayne wei wendell wendy wesley wilbur wilfred wilhelm willa william willie willow
    wilma winifred winston wyatt xavier xiang xin yan yang yash yasir yasmin yasmine yaw ying yoko yolanda yong yosef youssef yuki yumi
    yusuf yvette yvonne zachary zack zainab zanele zara zayn zelda zoe zoey
    """
)

# Given names that are words, months or places too: alone they count only after "my name is".
AMBIGUOUS_GIVEN_NAMES = _words(
    """
    angel april art august aurora austin autumn bill carol chase chris christian crystal daisy dale dawn dean don drew earl faith florence
    ford frank gay gene georgia grace grant hazel holly hope iris ivy jack jackson jade jan jasmine jesus jordan joy june lance lee lily
    madison mark max may melody mercedes miles min misty nelson olive pat patience pearl penny preston ray rich rob robin rose royal ruby
    sandy scarlet sierra sky sue summer sunny van victoria violet virginia will
    """
)

# Surnames that stand for a disease, sign, test or brand; such people are history. Frequent surnames (Bell, Wilson) are not here.
EPONYMS = _words(
    """
    achilles alport alzheimer apgar asperger babinski basedow behcet broca brown-sequard buerger burkitt cesarean chagas charcot chiari
    conn coombs creutzfeldt crohn down dupuytren ehlers epstein fabry fallot fanconi freud galen gaucher gehrig glasgow golgi google
    guillain hashimoto heimlich hippocrates hirschsprung hodgkin huntington jenner kaposi kawasaki kernig klinefelter koch koplik
    korsakoff lyme mantoux marfan meniere munchausen oz pap papanicolaou parkinson pasteur paul pepper phalen phil raynaud romberg
    rorschach salk scholl seuss sjogren snellen still strange sydenham tay tinel tourette virchow wegener wernicke who wilms
    """
)

# Capitalised words that follow a title, a greeting or a label without being anybody's name.
NOT_NAMES = _words(
    """
    a about absent accident account acne action active acute additional address admission admits admitted adult advice advised after
    afternoon age aged agreed ai alert alexa all allergic allergies allergy also am american an and answer antibiotic any appears appendix
    appointment approved april are arrived artery as asian aspirin assessment assistant asthma at attending august australian available
    bank be because been before benefits birth black blood board body bone bot brain breast british brother but by call called canadian
    cancer capsule capsules cardiac cardiology care case caucasian cell center central centre certificate chapter chart chat chatgpt check
    chest chief child children chinese chronic city class claude client clinic clinical colleague colleagues college come company
    complains complaint complaints conclusion confused consent consultant consultation contact control copy cough counseling cream
    currently customer dad daily dance date dates day days dds dear deceased december declined degree denied denies dental department
    detail details diabetes diabetic diagnosed diagnosis did died diet discharge discharged disclaimer disease diseases do doc doctor
    doctors does dosage dose dpt dr drug drugs during dutch ear education emergency english enrolled esq evaluation even evening ever
    every everybody everyone exam examination experienced eye factors fair family father february feeling female fever few figure file
    find fine first folks follow following foods foot for form foundation frcp frcs free french friday friend friends from full further
    gender general genetics german given glad go good google gpt great greek group guide guidelines guy guys had happy has have having he
    health healthy hear heart hello help her here hi high himself his history home hospital how however hurt hypertension i identification
    if ii iii ill im in indian infection info information initial injection inpatient instructions insurance interested intern
    international interview introduction is it italian its iv january japanese jewish jr july june just kidney kind kindly korean lab
    laboratory lactose lady last late latino lcsw left legal less let level liver living llama low lpn lung ma'am madam made male
    management mandatory march married may maybe mbbs md me medical medication medications medicine member memorial men mental mexican
    middle mom monday month months more morning mother mph mr mrs ms mum muscle muslim my name names national need needs never new next
    nhs night no non none normal not note noted november now np number numbers nurse nurses nursing obstetrics october of office ok old on
    oncology one only or oral order other others our out outcome outcomes outpatient overview own pa page pain paragraph parent parents
    part participant participants patient patients pediatric people per person pharmacist pharmacy phd phone physical physician pill plan
    please pm policy population portal post pre pregnant prescription presented presents prevention primary prior private problem
    procedure product products professor program protection provider public question questionnaire questions qwen reason recently record
    records reference referral regarding regards registered registration registry rehab rehabilitation relative report reported reports
    request research resources response results review right rights risk rn room routine russian sad safety said same satisfaction
    saturday says school score section see seen selection self senior september service services severe sex she short sick since sir siri
    sister site situation so social some son sorry spanish specialist spouse sr staff stage start started state statement states status
    step still stopped story street stroke student sub subject such summary sunday support supports sure surgeon surgery surgical survey
    swedish symptom symptoms syndrome syrup system table tablet tablets take tall team test tests thank thanks that the their them then
    there these they thin this those thursday time tired title to today tomorrow too total transfer transplant treatment trial tuesday
    turkish type unable under undergoes unit university unknown unless up update urgent urgently us use used user username vaccine vegan
    vegetarian version very veteran via visit visits volume was we wednesday week weeks weight welcome well were what when where which
    while white who whose why will with without woman women word work worried would wrong x year years yes yesterday you young your yours
    """
)

# Everyday words that are common surnames as well: they go on a name that a given name has begun.
WORDS_AND_SURNAMES = _words(
    """
    august baby best black book brown case church cook day doctor early english field fields frank french friday good grant gray green
    grey guide hill irish june king lane little long love march mason may monday nurse page park power powers price rice sharp short sick
    small stone street welsh white wise wood young
    """
)

# With a given name that is not on the list, a common surname shows that two words are a person.
SURNAMES = _words(
    """
    adams adeyemi aguilar ahmed alexander ali allen almeida alvarado alvarez anderson andersson andrews armstrong arnold austin bailey
    baker barker barnes bates bauer becker begum bell bennett berry bianchi bird bishop blackburn boateng booth bowen boyd bradley
    bradshaw brookes brooks brown bryant bull burke burns burrows burton butcher butler byrne campbell carlson carpenter carr carroll
    carter carvalho castillo castro chadwick chapman chaudhry chavez chen cheng cho choi chopra clark clarke clayton cole coleman collins
    connolly conti contreras cook cooke cooper costa coulson cox crane crawford cross cruz cunningham curtis daniels das davis dawson dean
    delgado deng desai diaz dixon dlamini dobson doherty dominguez donovan doyle dubois duncan dunn durand eaton edwards elliott ellis
    espinoza esposito estrada evans farrell faulkner feng ferguson fernandez ferrari ferreira fields finch fischer fisher fitzgerald
    fletcher flores foster fox francis franklin fraser freeman fuller gallagher garcia gardner garrett gibbs gibson gilbert goddard gomez
    gonzales gonzalez goodwin gordon gould graham gray greco greene gregory griffin griffiths guerrero guo gupta gutierrez guzman hall
    hamilton hansen hanson hardy hargreaves harmon harper harris harrison hart hartley harvey hassan hawkins hayes haynes heath henderson
    henry hernandez herrera hewitt hicks hobbs hoffman holland holmes hooper hope hopkins horvat houghton howard howell hu huang hudson
    hughes hunt hunter hussain hutchinson ibrahim ingram ito ivanov iyer jackson jacobs james jarvis jenkins jennings jensen jimenez
    johansson johnson johnston johnstone jones jordan joshi jung kang kapoor kato kaur kelley kelly kennedy kent kerr khan kim kirk klein
    knight kobayashi koch kowalski krishnan kumar lamb lane larsen larson laurent lawrence lawson leach lee lefebvre leroy lewis liang lin
    liu lloyd lopez lowe lucas luo lynch lyons macdonald mackenzie macleod maldonado malik mann manning marino marquez marsden marsh
    marshall martin martinez matthews mccann mccarthy mccoy mcdonald medina mehta mellor mendez mendoza mensah metcalfe meyer miles miller
    mills mitchell mohamed montgomery moore morales moreau moreno morgan morris morrison moss muller munoz murphy murray murthy mwangi
    myers naidoo nair nakamura naylor nelson neumann newman newton nguyen nichols nicholson nielsen nilsson nolan norris norton novak
    nowak nunez obrien oconnor okafor okonkwo oliveira oliver olsen olson oneill ortega ortiz osborne osei osman owens palmer park parker
    parkin parry parsons patel patterson payne peacock pearce pearson pedersen pena peng pereira perez perkins perry peters peterson
    petrov phillips pickering pierce pillay poole porter potter powell pratt preston price pritchard pugh quinn ramirez ramos randall rao
    reddy reed rees reid reyes reynolds rhodes ricci richards richardson richter riley rios rivera roberts robertson robinson robson
    rodriguez rogers rojas romano romero ross rossi rowe rowley ruiz russell russo ryan sanchez sanders sandoval santiago santos sato
    savage schmidt schneider schofield schroeder schulz scott shah sharma sharp sharpe shaw shepherd silva simmons simpson sims sinclair
    singh skinner slater smirnov smith snyder soto souza spencer steele stephens stephenson stevens stewart stokes stone storey sullivan
    sun sutherland sutton suzuki svensson swift sykes tanaka tang taylor terry thomas thompson thornton thorpe torres townsend tran tucker
    turnbull turner tyler valdez vargas vasquez vaughan vazquez vega verma wade wadsworth wagner walker wallace walsh walton wang ward
    warner warren washington watanabe waters watkins watson watts weaver webb weber webster welch wells west wheeler whitehead whitehouse
    wilkins wilkinson williams williamson willis wilson winter wisniewski wolf wong wood woods woodward wright wyatt xie xu yamamoto yang
    yates yoon zhang zhao zheng zhou zielinski
    """
)

PARTICLES = _words(
    """
    al bin bint da das de del della der di dos du el ibn la le ten ter van von y
    """
)

SHORT_SURNAMES = frozenset(
    ("Li", "Wu", "Xu", "Yu", "Ma", "Hu", "He", "Ho", "Ng", "Le", "Vo", "Oh", "An", "Lu", "Su", "Du", "Bo", "Jo", "Ed", "Al", "Qi", "Ye")
)
